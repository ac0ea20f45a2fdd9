"""The options of `repsim-fast train`, grouped as the arguments of ``training.train`` are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from repsim_fast._core import names

from . import ramps
from .attack_setup import ATTACKS, Norm, parse_radius, parse_varying_radius
from .options import Autocast, parse_folder

MIX_SHARE = 0.5
Out = Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to write, *.safetensors.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Network: {', '.join(names.NETWORKS)}. Capitals stand for numbers or names "
        "of your choice, as in wrn-28-10 or torchvision:resnet18. Not needed with --preset or "
        "--init.",
    ),
]
Init = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Begin with the weights of a checkpoint of the same network and number of classes, "
        "with --model also with those of a file of torch.save.",
    ),
]
KeepZeros = Annotated[
    bool | None,
    typer.Option(
        show_default=False,
        help="Weights that are 0 in the checkpoint of --init, as pruned ones, stay 0 (default: "
        "where it was pruned by `repsim-fast prune`).",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Train by a published recipe for CIFAR-10, which sets network, method and "
        f"schedule: {', '.join(names.RECIPES)}. Options given beside it count, but for "
        "those of the method, which are the recipe's.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Train on only N images, drawn at random."),
]
Tensorboard = Annotated[
    Path | None,
    typer.Option(
        parser=parse_folder,
        metavar="FOLDER",
        help="Write the figures of each epoch for TensorBoard, too.",
    ),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--no-resume",
        help="Go on with an interrupted training, or start it over.",
        show_default=False,
    ),
]
Mix = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="A second stream of training images, as for --data, of which every batch has a share "
        "(default: none). An epoch is one pass through the images of --data, which alone are held "
        "out and limited.",
    ),
]
MixShare = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help=f"Share of --mix in each batch, in (0, 1) (default: {MIX_SHARE:g})."
    ),
]
EvalData = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SPEC",
        help="A further set to measure on after each epoch and at the end, by a name of your "
        "choice: test images as for --data; several times for several.",
    ),
]
VALIDATION = 0.1
# float | Ramp | None, of which typer knows no such union.
Varying = Any


@dataclass(frozen=True)
class MethodOptions:
    """What the weights are trained for."""

    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"How to train: {', '.join(names.METHODS)}. 'ibp' and 'crown-ibp' "
            "train for verified bounds; of the others all but 'standard', 'noise' and 'smoothing' "
            "are adversarial.",
        ),
    ] = "standard"
    norm: Norm = "linf"
    eps: Annotated[
        Varying,
        typer.Option(
            parser=parse_varying_radius,
            metavar="RADIUS",
            show_default=False,
            help="How far the attack may go in that norm, where black is 0 and white is 1 "
            f"(default: 8/255 for linf, 0.5 for l2, 12 for l1). {ramps.HELP} So do --attack-steps, "
            "--step-size, --beta and --method-option; measured is at the last radius.",
        ),
    ] = None
    attack_steps: Annotated[
        Varying,
        typer.Option(
            parser=ramps.parse_varying_count,
            metavar="N",
            show_default=False,
            help="Attack steps in training, of pgd, trades and mart (default: 10).",
        ),
    ] = None
    step_size: Annotated[
        Varying,
        typer.Option(
            parser=ramps.parse_varying,
            metavar="SIZE",
            show_default=False,
            help="Attack step of pgd, trades, mart and free (default: a quarter of the radius, "
            "all of it for free).",
        ),
    ] = None
    beta: Annotated[
        Varying,
        typer.Option(
            parser=ramps.parse_varying,
            metavar="WEIGHT",
            show_default=False,
            help="Weight of robustness against accuracy, of trades (default: 6) and mart (5); of "
            "crown-ibp the share of linear bounds at the end (0).",
        ),
    ] = None
    method_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Any other option of the method or its attack by its name in Python, as in "
            "noise=1.5 or model_mode=train; several times for several.",
        ),
    ] = None


@dataclass(frozen=True)
class CourseOptions:
    """How long and how fast."""

    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Times through the images.")] = 10
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images a step.")] = 128
    lr: Annotated[float, typer.Option(metavar="RATE", help="Highest learning rate.")] = 0.1
    schedule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Course of the learning rate: {', '.join(names.SCHEDULES)}.",
        ),
    ] = "cosine"
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Vary the training images: 'crop' (small shifts) or 'crop+flip' (default: no).",
        ),
    ] = None


@dataclass(frozen=True)
class OptimisationOptions:
    """How the weights move: the fields of ``training.Optimisation``."""

    optimizer: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Optimizer: {', '.join(names.OPTIMIZERS)}; the two adams want --lr 0.001.",
        ),
    ] = "sgd"
    momentum: Annotated[
        float, typer.Option(metavar="SHARE", help="Momentum of sgd and sam, beta_1 of adam(w).")
    ] = 0.9
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov's momentum.")] = False
    beta2: Annotated[float, typer.Option(metavar="SHARE", help="beta_2 of adam and adamw.")] = 0.999
    rho: Annotated[
        float, typer.Option(metavar="RADIUS", help="How far sam perturbs the weights.")
    ] = 0.05
    weight_decay: Annotated[
        float, typer.Option(metavar="WEIGHT", help="L2 penalty on the weights.")
    ] = 5e-4
    decay_norms_and_biases: Annotated[
        bool, typer.Option(help="Whether it is on normalisation layers and biases, too.")
    ] = True
    max_grad_norm: Annotated[
        float | None,
        typer.Option(metavar="NORM", help="Scale longer gradients down to NORM (default: no)."),
    ] = None
    label_smoothing: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of each label spread over all classes."),
    ] = 0.0
    freeze_batch_norm: Annotated[
        str | None,
        typer.Option(
            "--freeze-bn",
            metavar="PART",
            help=f"What of batch norms is not trained: {', '.join(names.FROZEN_PARTS)} (default: "
            "nothing).",
        ),
    ] = None
    selectivity: Annotated[
        float | None,
        typer.Option(
            metavar="ALPHA",
            help="Encourage (above 0) or discourage (below 0) class selectivity of units "
            "(default: neither). The selectivity of each evaluated epoch is shown and logged.",
        ),
    ] = None
    selectivity_layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Layers whose units count for --selectivity and its figure, names or patterns "
            "such as stage1.*.relu2, with commas between them (default: every ReLU).",
        ),
    ] = None
    awp: Annotated[
        float,
        typer.Option(
            metavar="SIZE",
            help="Relative size of the adversarial weight perturbation, as in 0.005; 0 for none.",
        ),
    ] = 0.0
    awp_warmup: Annotated[
        int, typer.Option(min=0, metavar="N", help="Epochs before it begins.")
    ] = 0
    ema: Annotated[
        float | None,
        typer.Option(
            metavar="DECAY",
            help="Evaluate and save a running average of the weights, which keeps the share DECAY "
            "of itself in each step, as in 0.999 (default: no average).",
        ),
    ] = None
    autocast: Autocast = None


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured."""

    test_limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Test images for the accuracies, at most.")
    ] = 1000
    validation: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the training images that is not trained on: the accuracies of each "
            f"epoch, and the choice of the best one, are of these (default: {VALIDATION:g}). 0 "
            "takes the test images, as the recipes of --preset publish (their default).",
        ),
    ] = None
    eval_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Epochs between measurements.")
    ] = 1
    eval_attack: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Attacks that measure, with commas between them: each one's accuracy is given by "
            f"its name, and the best epoch chosen by the first. Of {', '.join(ATTACKS)} "
            "(default: pgd).",
        ),
    ] = None
    attacked: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of several sets one that is attacked; several times for several (default: all).",
        ),
    ] = None
    best: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Accuracy that the best epoch is chosen by, as the lines of epochs name it: SET, "
            "ATTACK or SET/ATTACK (default: the first set's under the first attack).",
        ),
    ] = None
    diagnostics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Further figures of each evaluated epoch on a few test images, with commas "
            "between them: selectivity (of units for classes), alignment (cosines of gradients "
            "nearby, and of the perturbations of FGSM and PGD-10), curvature (of the loss in the "
            "image).",
        ),
    ] = None
    diagnostic_images: Annotated[
        int, typer.Option(min=1, metavar="N", help="Test images for them, at most.")
    ] = 256
    eval_norm: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Norm of the attack that measures (default: --norm)."),
    ] = None
    eval_eps: Annotated[
        float | None,
        typer.Option(
            parser=parse_radius,
            metavar="RADIUS",
            help="Its radius (default: --eps, or the usual one of --eval-norm).",
        ),
    ] = None
    eval_steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Its steps after each epoch.")
    ] = 10
    detect_overfitting: Annotated[
        bool,
        typer.Option(
            "--detect-overfitting",
            help="Look for catastrophic overfitting after each epoch, and warn of it.",
        ),
    ] = False
    stop_on_overfitting: Annotated[
        bool, typer.Option("--stop-on-overfitting", help="End the training where it is found.")
    ] = False
    restore_on_overfitting: Annotated[
        bool,
        typer.Option(
            "--restore-on-overfitting",
            help="End it there, with the weights of the last epoch before.",
        ),
    ] = False
