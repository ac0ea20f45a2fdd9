"""How each claim is judged from the findings of its question; ``claims`` says which is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.lab.claims import SIGMAS, Findings, Judged, NotTestable, clear, in_words, known

from .presets import Preset
from .thresholds import (
    ABSOLUTE,
    APART,
    COST,
    DIMENSIONS,
    EXPLAINED,
    HALVED,
    MOVED,
    NO_LOSS,
    PUBLISHED,
    SPREAD,
    STILL_WORKS,
    VARIATION,
)

LOWER, HIGHER = "low", "high"


def _several(q: Findings) -> None:
    if q["seeds"] < 2:
        raise NotTestable("needs networks of two seeds")


def _moved(q: Findings) -> None:
    """Raises unless alpha moved selectivity and the networks of both ends still work."""
    _several(q)
    spread = known(q["high minus low"]["selectivity"])
    if spread < SPREAD:
        raise NotTestable(f"alpha moved mean selectivity by {spread:.3f}")
    means = q["alphas"]
    usual = known(means["0"]["clean accuracy"])
    for alpha in (q["low"], q["high"]):
        accuracy = known(means[alpha]["clean accuracy"])
        if accuracy < STILL_WORKS * usual:
            raise NotTestable(f"alpha {alpha} takes accuracy from {usual:.3f} to {accuracy:.3f}")


def halved(q: Findings, preset: Preset) -> Judged:
    _several(q)
    share, lost = q["low / 0"]["selectivity"], q["low minus 0"]["clean accuracy"]
    found = f"selectivity x{in_words(share)}, accuracy {in_words(lost)}"
    return found, known(share) <= HALVED and known(lost) >= -NO_LOSS


def costs(q: Findings, preset: Preset) -> Judged:
    _several(q)
    change = q["high minus 0"]["clean accuracy"]
    return f"accuracy {in_words(change)}", _clearly_below(change, COST)


def gains(q: Findings, preset: Preset) -> Judged:
    _several(q)
    change = q["low minus 0"]["clean accuracy"]
    if not preset.absolute:
        raise NotTestable(f"another network or data set; accuracy {in_words(change)}")
    return f"accuracy {in_words(change)}", clear(change, COST)


def absolute(q: Findings, preset: Preset) -> Judged:
    means = {alpha: known(own["selectivity"]) for alpha, own in q["alphas"].items()}
    both = {alpha: (means[alpha], value) for alpha, value in PUBLISHED.items() if alpha in means}
    numbers = ", ".join(
        f"alpha {alpha}: {own:.3f} ({value})" for alpha, (own, value) in both.items()
    )
    if not preset.absolute:
        raise NotTestable(f"another network or data set; {numbers}")
    return numbers, all(abs(own - value) <= ABSOLUTE for own, value in both.values())


def _end(name: str, better: str, least: float) -> Callable[[Findings, Any], Judged]:
    """The networks of one end have more of a figure than those of the other, by more than noise."""

    def judge(q: Findings, preset: Preset) -> Judged:
        _moved(q)
        change = q["high minus low"][name]
        found = f"high minus low {in_words(change)}"
        return found, clear(change, least) if better == HIGHER else _clearly_below(change, least)

    return judge


corrupted = _end("corrupted accuracy", LOWER, COST)
relative = _end("over clean", LOWER, COST)
pgd = _end("pgd", HIGHER, COST)
fgsm = _end("fgsm", HIGHER, COST)
jacobian = _end("log norm of Jacobian", LOWER, 0.0)
dimensions = _end("early clean: components 95", LOWER, DIMENSIONS)
change_of_dimensions = _end("early change, adversarial: components 95", LOWER, DIMENSIONS)
across_samples = _end("across samples", HIGHER, VARIATION)
across_units = _end("across units", HIGHER, VARIATION)


def adversarial_dimensions(q: Findings, preset: Preset) -> Judged:
    _several(q)
    gap = q["at 0"]["early adversarial minus corrupted: components 95"]
    return f"adversarial minus corrupted {in_words(gap)}", clear(gap, 0.0)


def against_attacks(q: Findings, preset: Preset) -> Judged:
    _several(q)
    gained = q["attacked minus standard"]["attacked accuracy"]
    change = q["attacked minus standard"]["selectivity"]
    if not clear(gained, COST):
        raise NotTestable(f"training made networks no more robust: {in_words(gained)}")
    return f"selectivity {in_words(change)}", clear(change, MOVED)


def against_corruptions(q: Findings, preset: Preset) -> Judged:
    _several(q)
    gained = q["mixed minus standard"]["corrupted accuracy"]
    change = q["mixed minus standard"]["selectivity"]
    if not clear(gained, 0.0):
        raise NotTestable(f"training made networks no more robust: {in_words(gained)}")
    return f"selectivity {in_words(change)}", _clearly_below(change, MOVED)


def apart(q: Findings, preset: Preset) -> Judged:
    gap = q["seed to seed minus low with high"]
    if gap is None:
        raise NotTestable("needs networks of two seeds")
    found = f"{in_words(q['low with high'])}, seed to seed {in_words(q['seed to seed'])}"
    return found, clear(gap, APART)


def explained(q: Findings, preset: Preset) -> Judged:
    correlation = q["explained"]["attacked"]
    return f"rank correlation {in_words(correlation)}", clear(correlation, EXPLAINED)


def _clearly_below(estimate: Findings, least: float) -> bool:
    """Below minus the threshold, and below 0 by more than noise where its size is known."""
    value = known(estimate)
    return value < -least and -value > SIGMAS * (estimate["se"] or 0.0)
