"""What `repsim-fast train` measures by: attacks, a detector, diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from repsim_fast.data import ImageData
from repsim_fast.training import Diagnostics, OverfittingDetector, SelectivityRegulariser

from . import ramps
from .attack_setup import ONE_STEP, attack_names, build_attack
from .train_options import EvaluationOptions
from .train_setup import Setup, checked_radius

DIAGNOSTICS = ("selectivity", "alignment", "curvature")


@dataclass(frozen=True)
class Measurement:
    """The attacks that measure robust accuracy, in this norm and radius.

    Attributes:
        norm: Of all of them.
        eps: Radius.
        names: Of the attacks asked for; none for PGD, whose accuracy then has no name.
    """

    norm: str
    eps: float
    names: tuple[str, ...] = ()

    def attack(self, steps: int, seed: int) -> Any:
        """The attack, or those asked for by name, with so many steps where they have a number."""
        built = {name: self._built(name, steps, seed) for name in self.names or ("pgd",)}
        return built if self.names else built["pgd"]

    def described(self, steps: int) -> str:
        """The attacks in words."""
        several = ", ".join(self.names) or "PGD"
        one_step = self.names and {*self.names} <= {*ONE_STEP}
        return f"{several}, {self}" if one_step else f"{several}, {steps} steps, {self}"

    def first(self) -> Measurement:
        """With the first attack alone, which ``Accuracy.robust`` is of."""
        return replace(self, names=self.names[:1])

    def _built(self, name: str, steps: int, seed: int) -> Any:
        return build_attack(
            name, norm=self.norm, eps=self.eps, steps=None if name in ONE_STEP else steps,
            restarts=1, fast=False, seed=seed,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"eps {self.eps:.6g}" + ("" if self.norm == "linf" else f" in {self.norm}")


def measurement(setup: Setup, options: EvaluationOptions) -> Measurement:
    """What robust accuracy is measured by: the training's norm and radius, unless told otherwise.

    Raises:
        ValueError: No such norm or attack.
    """
    names: tuple[str, ...] = ()
    if options.eval_attack is not None:
        names = tuple(attack_names("--eval-attack", options.eval_attack))
    if options.eval_norm is None and options.eval_eps is None:
        return Measurement(setup.norm, setup.eps, names)
    norm = options.eval_norm or setup.norm
    eps = ramps.last(checked_radius("--eval-eps", norm, options.eval_eps))
    return Measurement(norm, eps, names)


def detection(setup: Setup, options: EvaluationOptions) -> dict[str, Any]:
    """The arguments of ``Evaluation`` about catastrophic overfitting."""
    asked = (
        options.detect_overfitting, options.stop_on_overfitting, options.restore_on_overfitting
    )  # fmt: skip
    if not any(asked):
        return {}
    return {
        "detector": OverfittingDetector(setup.eps, norm=setup.norm),
        "stop_on_overfitting": options.stop_on_overfitting,
    }


def check_diagnostics(setup: Setup, options: EvaluationOptions) -> list[str]:
    """Names of the diagnostics asked for; selectivity also where it is trained for.

    Raises:
        ValueError: No such name, or the alignment of a training in another norm than Linf.
    """
    names = [name.strip() for name in (options.diagnostics or "").split(",") if name.strip()]
    if options.diagnostics is not None and not names:
        raise ValueError("--diagnostics: expected names, got none")
    for name in names:
        if name not in DIAGNOSTICS:
            raise ValueError(
                f"--diagnostics must be some of {', '.join(DIAGNOSTICS)}, got {name!r}"
            )
    if "alignment" in names and setup.norm != "linf":
        raise ValueError(f"--diagnostics: alignment is of linf radii, the norm is {setup.norm}")
    trained = any(isinstance(r, SelectivityRegulariser) for r in setup.optimisation.regularisers)
    if trained and "selectivity" not in names:
        names.append("selectivity")
    return names


def diagnostics(
    names: list[str],
    setup: Setup,
    options: EvaluationOptions,
    images: ImageData,
    seed: int,
    *,
    layers: list[str] | None,
) -> Diagnostics | None:
    """What measures them on some images, selectivity of ``layers``; None for no names.

    Drawn at random, for the first of a folder are all of its first class.
    """
    if not names:
        return None
    some = images.subset(min(options.diagnostic_images, len(images)), seed)
    return Diagnostics(
        *some.tensors(),
        eps=setup.eps if "alignment" in names else None,
        selectivity="selectivity" in names,
        curvature="curvature" in names,
        layers=layers,
        every=None,
        seed=seed,
    )


def figures_of(scores: Mapping[str, float]) -> str:
    """Accuracies by name in one line."""
    return "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
