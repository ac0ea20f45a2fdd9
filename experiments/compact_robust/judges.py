"""How each claim is judged from the findings of its question; ``claims`` says which is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.lab.claims import Findings, Judged, NotTestable, clear, in_words, known

from .compact_lab import ERA
from .presets import Preset
from .thresholds import (
    ABSOLUTE,
    APART,
    COST,
    GAPS,
    KEPT,
    KEPT_LEARNED,
    LAYERS,
    MEASURABLE,
    OTHER_LAYERS,
    ROBUST,
    USED,
)

Judge = Callable[[Findings, Any], Judged]


def _several(q: Findings) -> None:
    if q["seeds"] < 2:
        raise NotTestable("needs networks of two seeds")


def _kept(accuracy: str, way: str, least: float) -> Judge:
    """A share of an accuracy is kept at tenfold compression."""

    def judge(q: Findings, preset: Preset) -> Judged:
        _several(q)
        share = q["kept"][way][accuracy]
        if share is None:
            raise NotTestable(f"no unpruned network has {accuracy} of {MEASURABLE}")
        return f"kept {in_words(share)}", known(share) >= least

    return judge


benign_kept = _kept("benign", "magnitude", KEPT["benign"])
era_kept = _kept("era", "magnitude", KEPT["era"])
vra_kept = _kept("vra", "magnitude", KEPT["vra"])
era_kept_by_scores = _kept("era", "learned", KEPT_LEARNED)


def _objective(where: str) -> Judge:
    """The robust objective throughout is more robust than standard training at a stage."""

    def judge(q: Findings, preset: Preset) -> Judged:
        _several(q)
        gained = q["robust minus standard"][ERA]
        if not clear(gained, ROBUST):
            raise NotTestable(f"training against attacks gained {in_words(gained)} of era")
        change = q[f"minus standard {where}"][ERA]
        return f"era {in_words(change)}", clear(change, COST)

    return judge


objective_before = _objective("before")
objective_after = _objective("after")


def scores_win(q: Findings, preset: Preset) -> Judged:
    _several(q)
    change = q["gaps"][q["most"]][ERA]
    # Where both are at chance there is no gap to find.
    of = f"{q['above chance']} of {q['networks']} networks above chance"
    return f"era {in_words(change)} at {q['most']}, {of}", clear(change, COST)


def gap_grows(q: Findings, preset: Preset) -> Judged:
    _several(q)
    if q["most"] == q["focus"]:
        raise NotTestable("needs a sparsity above that of tenfold compression")
    change = q["growth"][ERA]
    return f"era {in_words(change)} more at {q['most']} than {q['focus']}", clear(change, COST)


def published_gaps(q: Findings, preset: Preset) -> Judged:
    both = {s: (known(q["usual"][s][ERA]), value) for s, value in GAPS.items() if s in q["usual"]}
    numbers = ", ".join(f"{s}: {own:.3f} ({value})" for s, (own, value) in both.items())
    if not preset.absolute:
        raise NotTestable(f"another network or data set; {numbers}")
    return numbers, all(abs(own - value) <= ABSOLUTE for own, value in both.values())


def filters_cost(q: Findings, preset: Preset) -> Judged:
    _several(q)
    change = q["weights minus filters"][q["most"]][ERA]
    return f"era {in_words(change)} at {q['most']}", clear(change, COST)


def rounds_win(q: Findings, preset: Preset) -> Judged:
    _several(q)
    change = q["iterative minus one shot"][q["most"]][ERA]
    return f"era {in_words(change)} at {q['most']}", clear(change, COST)


def robust_changes_more(q: Findings, preset: Preset) -> Judged:
    _several(q)
    change = q["standard minus robust"]
    return f"CKA, standard minus robust {in_words(change)}", clear(change, APART)


def other_layers(q: Findings, preset: Preset) -> Judged:
    _several(q)
    if q["layers"] < LAYERS:
        raise NotTestable(f"needs {LAYERS} layers, got {q['layers']}")
    correlation = q["rank correlation of losses"]
    below = {"value": OTHER_LAYERS - known(correlation), "se": correlation["se"]}
    return f"rank correlation {in_words(correlation)}", clear(below, 0.0)


def beyond_training(q: Findings, preset: Preset) -> Judged:
    _several(q)
    change = q["trained further minus pruned"]["robust"]
    return f"CKA {in_words(change)}", clear(change, APART)


def _units(figure: str, sign: int) -> Judge:
    """Pruning moves a figure of the robust network's units in a direction."""

    def judge(q: Findings, preset: Preset) -> Judged:
        _several(q)
        change = q["pruned minus trained further"]["robust"][figure]
        signed = {"value": sign * known(change), "se": change["se"]}
        return f"pruned minus unpruned {in_words(change)}", clear(signed, APART)

    return judge


selective = _units("selectivity", 1)
low_dimensional = _units("components 95", -1)


def _used(kind: str) -> Judge:
    """Pruned weights carry more of the attack's change than of images' own."""

    def judge(q: Findings, preset: Preset) -> Judged:
        _several(q)
        found = q["carried beyond images"][kind]
        attack, noise = found["attack"], found["noise"]
        return f"attack {in_words(attack)}, noise {in_words(noise)}", clear(attack, USED)

    return judge


used_in_standard = _used("standard")
used_in_robust = _used("robust")
