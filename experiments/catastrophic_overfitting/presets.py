"""What each preset trains and measures; radii and amplitudes are in 1/255."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.lab import presets

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, kw_only=True)
class Preset(presets.Preset):
    """Sizes of a run; what is not here is in ``experiments.lab.presets``.

    Attributes:
        grid: Radii, each with the amplitudes of question 1, both rising.
        focus: Radius and amplitude, of the grid, where the feature should induce the collapse:
            questions 2 to 4 and 6 are about it.
        plain: Radius at which the training should collapse without the feature, question 5.
        cured: Amplitudes of question 2, at the radius of ``focus``.
        cures: Methods of question 2, see ``repsim_fast.training.methods``.
        training_steps: Of PGD in training.
        attack_steps, restarts: Of PGD in evaluation, at a quarter of the radius a step.
        alignment: Weight of GradAlign.
        bandwidth: Frequencies that the low pass of question 5 keeps.
        probed: Test images of what is measured after an epoch.
        curved: Images of those whose curvature is measured.
        cured_seeds: So many of the seeds are trained with each cure of question 2 and intervention
            of question 5, None for all; without, all are.
        every: Epochs between networks that are kept of the trainings of questions 3, 4 and 6.
    """

    grid: tuple[tuple[float, tuple[float, ...]], ...]
    focus: tuple[float, float]
    plain: float
    cured: tuple[float, ...]
    cures: tuple[str, ...] = ("rs-fgsm", "n-fgsm", "gradalign", "pgd")
    training_steps: int = 10
    attack_steps: int = 50
    restarts: int = 10
    alignment: float = 0.2
    bandwidth: int = 16
    probed: int = 256
    curved: int = 64
    cured_seeds: int | None = None
    every: int = 1

    @property
    def treated(self) -> tuple[int, ...]:
        """Seeds of cures and interventions."""
        return self.seeds[: self.cured_seeds]


PRESETS = {
    # 8 x 8 digits need radii and amplitudes several times those of photographs.
    "smoke": Preset(
        name="smoke",
        dataset="digits",
        architecture="wrn-10-1",
        seeds=(0, 1),
        train_images=600,
        test_images=200,
        epochs=10,
        batch_size=50,
        lr=0.2,
        compare_batch=50,
        grid=((40.0, (0.0, 60.0)), (100.0, (0.0, 60.0, 200.0))),
        focus=(100.0, 60.0),
        plain=100.0,
        cured=(60.0,),
        # The noise of N-FGSM at such a radius covers all images.
        cures=("rs-fgsm", "gradalign", "pgd"),
        training_steps=3,
        attack_steps=10,
        restarts=1,
        bandwidth=4,
        probed=100,
        curved=16,
        every=2,
        minutes=3,
    ),
    # Planned for three hours of two cores, two networks at a time. An epoch of 12,000 images takes,
    # in seconds of one core of a Xeon with AMX whose other core was as busy (over 10 batches):
    # 18 standard, 37 FGSM and N-FGSM, 52 RS-FGSM, 92 PGD of five steps, 212 GradAlign, whose double
    # backward is slow; so 12 epochs take 440 s by FGSM, and
    #   question 1: (2 + 8 + 2) * 2 seeds * 440       = 10,560 s
    #   question 2: 620 + 440 + 2,550 + 1,100         =  4,710 s
    #   question 5: 3 * 440, question 6: 220          =  1,540 s
    # are 16,810 s, 140 minutes of two cores. What is measured follows on one: 22 s a network at
    # most (PGD: 19), 22 s an epoch and training of question 4, 10 s a view of question 6, so 1,500
    # s, 25 minutes. It ends in three hours as long as an epoch of FGSM takes 40 s.
    "cpu": Preset(
        name="cpu",
        dataset="cifar10",
        architecture="preactresnet-18-w16",
        seeds=(0, 1),
        train_images=12_000,
        test_images=1000,
        epochs=12,
        batch_size=128,
        lr=0.2,
        compare_batch=125,
        grid=(
            (9.0, (0.0, 10.0)),
            (10.0, (0.0, 2.0, 5.0, 7.0, 10.0, 16.0, 22.0, 28.0)),
            (12.0, (0.0, 28.0)),
        ),
        focus=(10.0, 5.0),
        plain=12.0,
        cured=(5.0,),
        training_steps=5,
        attack_steps=20,
        restarts=1,
        alignment=0.36,
        cured_seeds=1,
        autocast="auto",
        every=2,
        minutes=165,
    ),
    # The published setting, with one seed more than it has.
    "gpu": Preset(
        name="gpu",
        dataset="cifar10",
        architecture="preactresnet-18",
        seeds=(0, 1),
        train_images=None,
        test_images=10_000,
        epochs=30,
        batch_size=128,
        lr=0.2,
        compare_batch=1000,
        grid=(
            (4.0, (0.0, 3.0, 5.0, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0)),
            (6.0, (0.0, 4.0, 6.0, 8.0, 10.0, 13.0, 15.0, 17.0, 22.0)),
            (8.0, (0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 26.0)),
        ),
        focus=(6.0, 8.0),
        plain=8.0,
        cured=(4.0, 8.0, 10.0),
        probed=1000,
        curved=256,
        every=2,
        minutes=870,
        device="cuda",
        autocast="bfloat16",
        absolute=True,
    ),
}
