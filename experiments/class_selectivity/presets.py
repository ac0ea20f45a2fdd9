"""What each preset trains and measures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.lab import presets

__all__ = ["PRESETS", "WITHOUT_PACKAGE", "Preset"]


@dataclass(frozen=True, kw_only=True)
class Preset(presets.Preset):
    """Sizes of a run; what is not here is in ``experiments.lab.presets``.

    Attributes:
        alphas: Of the regulariser, ascending, 0 among them.
        low, high: Two of them that claims compare with 0 and with each other.
        swept_seeds: Seeds of the other ones; None for all.
        radii: Multiples of the radius at which networks are attacked.
        corruptions: "simple" or "package", see ``corruptions``; published images, where they
            are beside the data, take its place in question 2.
        robust: How networks of question 6 are trained against attacks: "pgd" or "n-fgsm".
        neighbours: Images of the two-NN estimate.
        gradient_images, gradient_units: Images, and units a layer, of gradients.
        watched: Test images of the selectivity that is logged after each epoch.
        schedule: Of the learning rate.
    """

    alphas: tuple[float, ...]
    low: float
    high: float
    radii: tuple[float, ...]
    corruptions: str
    neighbours: int
    gradient_images: int
    gradient_units: int
    watched: int
    swept_seeds: int | None = None
    robust: str = "pgd"
    schedule: str = "cosine"


PRESETS = {
    "smoke": Preset(
        name="smoke",
        dataset="digits",
        architecture="resnet-8",
        seeds=(0, 1),
        train_images=500,
        test_images=200,
        epochs=5,
        batch_size=50,
        lr=0.1,
        compare_batch=100,
        alphas=(-2.0, 0.0, 2.0),
        low=-2.0,
        high=2.0,
        radii=(0.5, 1.0),
        corruptions="simple",
        neighbours=100,
        gradient_images=40,
        gradient_units=8,
        watched=100,
        minutes=1,
    ),
    # Planned for three hours of two cores with AMX, two networks at a time. A pass over all images
    # takes, in seconds of one core while the other was as busy (over 10 batches, bfloat16): 119 of
    # alpha 0, 157 with the regulariser, 179 in N-FGSM, 113 with mixed chains; so
    #   alpha 0, 3 seeds, 6 epochs                3 * 6 * 119               =  2,140 s
    #   alphas -2 and 2, and two with one seed    (6 + 2) * 6 * 157         =  7,540 s
    #   N-FGSM and mixed chains, 3 seeds          3 * 6 * (179 + 113)       =  5,260 s
    # are 14,940 s, 125 minutes of two cores. What is measured of 17 networks follows on one, 160 s
    # each: 95 corruptions of 500 images at 1 s, three radii by PGD at 8 s, dimensions, gradients;
    # that is 45 minutes more. cpu-simple has 30 corruptions, and 27 minutes.
    "cpu": Preset(
        name="cpu",
        dataset="cifar10",
        architecture="resnet-20",
        seeds=(0, 1, 2),
        train_images=None,
        test_images=500,
        epochs=6,
        batch_size=128,
        lr=0.2,
        compare_batch=50,
        alphas=(-2.0, -0.5, 0.0, 0.5, 2.0),
        swept_seeds=1,
        low=-2.0,
        high=2.0,
        radii=(0.125, 0.25, 0.5),
        corruptions="package",
        neighbours=500,
        gradient_images=64,
        gradient_units=4,
        watched=256,
        robust="n-fgsm",
        schedule="cyclic",
        autocast="auto",
        minutes=170,
    ),
    "gpu": Preset(
        name="gpu",
        dataset="tiny-imagenet-20k",
        architecture="torchvision:resnet18",
        seeds=(0, 1, 2),
        train_images=None,
        test_images=2000,
        epochs=90,
        batch_size=256,
        lr=0.1,
        compare_batch=250,
        alphas=(-5.0, -2.0, -1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0, 2.0, 5.0),
        low=-2.0,
        high=2.0,
        radii=(0.125, 0.25, 0.5, 1.0),
        corruptions="package",
        neighbours=1000,
        gradient_images=200,
        gradient_units=32,
        watched=1000,
        schedule="step",
        device="cuda",
        autocast="bfloat16",
        absolute=True,
        minutes=300,
    ),
}

# The cpu preset where the package of corruptions is not to be had: six kinds of plain torch.
WITHOUT_PACKAGE = "cpu-simple"
PRESETS[WITHOUT_PACKAGE] = replace(
    PRESETS["cpu"], name=WITHOUT_PACKAGE, corruptions="simple", minutes=155
)
