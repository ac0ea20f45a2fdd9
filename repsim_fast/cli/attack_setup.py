"""Which attack `repsim-fast attack` runs, from its options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repsim_fast._core.ramp import Ramp
from repsim_fast._core.suggestions import did_you_mean

from . import ramps

if TYPE_CHECKING:
    from repsim_fast.attacks import Corruption

# Radii that papers on CIFAR-10 report.
_RADIUS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
_NORM = "linf"  # where none is chosen
# Names of attacks, and of the classes of `repsim_fast.attacks` that they stand for.
ATTACKS = {
    "pgd": "PGD",
    "fgsm": "FGSM",
    "rs-fgsm": "RSFGSM",
    "n-fgsm": "NFGSM",
    "mi-fgsm": "MIFGSM",
    "apgd": "APGD",
    "apgd-dlr": "APGD",
    "apgd-t": "APGDTargeted",
    "autoattack": "AutoAttack",
}
# What such a name says of the attack besides.
_SETTINGS = {"apgd-dlr": {"loss": "dlr"}}
# Attacks that transform images, whose radii are of their own kinds.
_TRANSFORMS = {
    "gabor": "GaborAttack",
    "jpeg": "JPEGAttack",
    "rotation": "RotationTranslation",
    "snow": "SnowAttack",
}
# How a common corruption is written; without a severity it is 3.
CORRUPTION = "corruption:NAME@SEVERITY"
ONE_STEP = ("fgsm", "rs-fgsm", "n-fgsm")
_RESTARTED = ("pgd", "apgd", "apgd-dlr", "apgd-t")


def parse_radius(text: str | float) -> float:
    """A positive radius from "8/255", "0.5" or "0.5/255"."""
    try:
        value = float(ramps.number(str(text).replace(" ", "")))
    except ValueError:
        value = 0.0
    if not value > 0:
        raise typer.BadParameter(
            f"expected a number above 0 or a fraction such as 8/255, got {text!r}"
        )
    return value


def parse_varying_radius(text: str | float | Ramp) -> float | Ramp:
    """A positive radius, or a ramp from a radius or none at all to such."""
    if not ramps.is_ramp(str(text)):
        return parse_radius(str(text))
    value = ramps.parse_varying(str(text))
    if isinstance(value, Ramp) and (value.start < 0 or value.stop <= 0):
        raise typer.BadParameter(
            f"expected a ramp of radii, from 0 at least to a number above 0, got {text!r}"
        )
    return value


Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        show_default=False,
        help="What `repsim-fast train` wrote, pretrained:NAME for a network that comes with the "
        "package, or any other trained network as `repsim-fast compare` takes it.",
    ),
]
AttackNames = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help=f"Attack, or several with commas between them: {', '.join(ATTACKS)}.",
    ),
]
Norm = Annotated[str, typer.Option(metavar="NAME", help="'linf', 'l2' or 'l1'.")]
Radius = Annotated[
    float | None,
    typer.Option(
        parser=parse_radius,
        metavar="RADIUS",
        show_default=False,
        help="How far the attack may go in that norm, where black is 0 and white is 1 "
        "(default: 8/255 for linf, 0.5 for l2, 12 for l1).",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Steps (default: the attack's, 10 of pgd, 100 of apgd)."),
]
Restarts = Annotated[int, typer.Option(min=1, metavar="N", help="Runs, of which the worst counts.")]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="Fold BatchNorm and put channels last while attacking: the same up to rounding.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Where to save the adversarial images, *.safetensors (default: nowhere).",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Use only N images, drawn at random."),
]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Images at a time.")]


def radius_of(norm: str, eps: float | None) -> float:
    """The radius asked for, or the usual one of the norm.

    Raises:
        ValueError: No such norm.
    """
    if norm not in _RADIUS:
        raise ValueError(f"--norm must be one of {', '.join(_RADIUS)}, got {norm!r}")
    return _RADIUS[norm] if eps is None else eps


def attack_names(option: str, text: str) -> list[str]:
    """Names of attacks with commas between them.

    Raises:
        ValueError: No such attack, or one twice.
    """
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in ATTACKS:
            meant = f";{near}" if (near := did_you_mean(name, ATTACKS)) else ""
            raise ValueError(f"{option} must be one of {', '.join(ATTACKS)}, got {name!r}{meant}")
    if len({*names}) < len(names):
        raise ValueError(f"{option}: an attack is given twice in {text!r}")
    return names


def compared_attack(
    option: str, name: str, *, norm: str, eps: float | None, steps: int | None, seed: int
) -> Any:
    """One of all attacks there are, for what networks are to see in a comparison.

    Raises:
        ImportError: The package of common corruptions is missing.
        ValueError: No such attack, or an option that it does not have.
    """
    from repsim_fast import attacks

    known = sorted((*ATTACKS, *_TRANSFORMS, CORRUPTION))
    given = name.strip().lower()
    kind, _, which = given.partition(":")
    if kind == "corruption":
        own = {"--norm": None if norm == _NORM else norm, "--eps": eps, "--attack-steps": steps}
        return _corruption(option, which, own, seed)
    if given not in known:
        near = did_you_mean(given, known)
        raise ValueError(
            f"{option} must be one of {', '.join(known)}, got {name!r}"
            + (f";{near}" if near else "")
        )
    if given in ATTACKS:
        radius = radius_of(norm, eps)
        return build_attack(
            given, norm=norm, eps=radius, steps=steps, restarts=1, fast=False, seed=seed
        )
    options: dict[str, Any] = {"eps": eps, "steps": steps}
    wanted = {key: value for key, value in options.items() if value is not None}
    if norm != _NORM:
        raise ValueError(f"--norm: {given} has no norm to choose, got {norm!r}")
    if given == "rotation" and wanted:
        raise ValueError(f"{option}: rotation has no radius and no steps, got {wanted}")
    return getattr(attacks, _TRANSFORMS[given])(seed=seed, **wanted)


def attack_maker(
    name: str | None, *, norm: str, eps: float | None, steps: int | None, seed: int
) -> Callable[[], Any] | None:
    """What makes the attack anew, each time from the same random start; None without one.

    Raises:
        ValueError: No such attack, or an option that it does not have.
    """
    if name is None:
        own = {"--norm": None if norm == _NORM else norm, "--eps": eps, "--attack-steps": steps}
        for option, value in own.items():
            if value is not None:
                raise ValueError(f"{option}: acts on an attack, and there is none without --attack")
        return None
    make = partial(compared_attack, "--attack", name, norm=norm, eps=eps, steps=steps, seed=seed)
    make()  # which says what is wrong with it
    return make


def attacks_on(networks: dict[str, Any], make: Callable[[], Any] | None) -> dict[str, Any] | None:
    """For each network the attack on it, from the same random start."""
    if make is None or not networks:
        return None
    return {name: partial(make(), network) for name, network in networks.items()}


def _corruption(option: str, text: str, others: dict[str, Any], seed: int) -> Corruption:
    """The common corruption that "fog" or "fog@5" means."""
    from repsim_fast.attacks import Corruption, corruptions

    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(f"{option}: a corruption has a severity (@1 to @5), not {given[0]}")
    name, at, severity = text.partition("@")
    known = corruptions.names()
    if name not in known:
        near = did_you_mean(name, known)
        raise ValueError(
            f"{option} must be {CORRUPTION} with NAME one of {', '.join(known)}, got {name!r}"
            + (f";{near}" if near else "")
        )
    if at and severity not in ("1", "2", "3", "4", "5"):
        raise ValueError(f"{option}: severity must be @1 to @5, got {'@' + severity!r}")
    return Corruption(name, severity=int(severity or 3), seed=seed)


def build_attack(
    name: str, *, norm: str, eps: float, steps: int | None, restarts: int, fast: bool, seed: int
) -> Any:
    """The attack, from what of the command line it takes.

    Raises:
        ValueError: An option that the attack does not have.
    """
    from repsim_fast import attacks

    options: dict[str, Any] = {"norm": norm, "seed": seed}
    options["execution"] = "fast" if fast else "exact"
    if steps is not None:
        if name in ONE_STEP:
            raise ValueError(f"--steps: {name} has a fixed number of steps")
        options["steps"] = steps
    if restarts > 1:
        if name not in _RESTARTED:
            raise ValueError(f"--restarts: only for {', '.join(_RESTARTED)}, got {name!r}")
        options["restarts"] = restarts
    return getattr(attacks, ATTACKS[name])(eps, **_SETTINGS.get(name, {}), **options)
