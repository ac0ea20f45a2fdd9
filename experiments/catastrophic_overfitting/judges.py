"""How each claim is judged from the findings of its question; ``claims`` says which is which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.lab.claims import Findings, Judged, NotTestable, clear, in_words, known

from . import thresholds as t
from .presets import Preset


def _focus(q: Findings, preset: Preset) -> Findings:
    own: Findings = q["radii"][f"{preset.focus[0]:g}"]
    return own


def _collapsed(q: Findings) -> None:
    if not q["networks that collapse"]:
        raise NotTestable("no training at focus was robust and collapsed then")


def _robust_without(q: Findings, preset: Preset) -> None:
    """Raises unless there is robustness to lose before the feature comes."""
    own = _focus(q, preset)
    if "0" not in own["clean"]:
        raise NotTestable("no training without feature")
    clean, robust = (own[kind]["0"] for kind in ("clean", "robust"))
    if own["collapsed"]["0"] == 0 and known(robust) < t.LEFT * known(clean):
        found = f"{in_words(clean)} clean, {in_words(robust)} under attack"
        raise NotTestable(f"without feature the network is too weak for the radius: {found}")


def induced(q: Findings, preset: Preset) -> Judged:
    _robust_without(q, preset)
    own = _focus(q, preset)["collapsed"]
    without, most = own["0"], max(own.values())
    return (
        f"collapsed without feature {without:.2f}, with it {most:.2f}",
        without == 0 and most == 1,
    )


def suffices(q: Findings, preset: Preset) -> Judged:
    own = _focus(q, preset)
    if not any(own["collapsed"].values()):
        raise NotTestable("no training collapsed")
    beta = list(own["robust"])[-1]
    robust = own["robust"][beta]
    found = f"at beta {beta}: robust accuracy {in_words(robust)}"
    return found, known(robust) >= t.SUFFICIENT and own["collapsed"][beta] == 0


def onset(q: Findings, preset: Preset) -> Judged:
    return _border(q, "onset", t.ONSET, preset)


def end(q: Findings, preset: Preset) -> Judged:
    return _border(q, "end", t.END, preset)


def _border(q: Findings, name: str, wanted: tuple[float, float], preset: Preset) -> Judged:
    own = {eps: one[f"{name} / eps"] for eps, one in q["radii"].items()}
    seen = {eps: bracket for eps, bracket in own.items() if bracket is not None}
    found = ", ".join(f"eps {eps}: {low:.2f} to {high:.2f}" for eps, (low, high) in seen.items())
    if not seen:
        raise NotTestable(f"no {name} among the amplitudes")
    if not preset.absolute:
        raise NotTestable(f"another network or data set; {found}")
    low, high = wanted
    return found, all(a <= high and b >= low for a, b in seen.values())


def jump(q: Findings, preset: Preset) -> Judged:
    return _at_onset(q, preset, "jump of clean accuracy", t.JUMP)


def rise(q: Findings, preset: Preset) -> Judged:
    return _at_onset(q, preset, "rise of robust accuracy", t.RISE)


def _at_onset(q: Findings, preset: Preset, name: str, least: float) -> Judged:
    _robust_without(q, preset)
    own = _focus(q, preset)
    if name not in own:
        raise NotTestable("no onset, or no amplitude before it")
    return in_words(own[name]), clear(own[name], least)


def small_radius(q: Findings, preset: Preset) -> Judged:
    (eps, own), *_ = q["radii"].items()
    most = max(own["collapsed"].values())
    return f"at eps {eps} a share of {most:.2f} of the networks of a cell, at most", most == 0


def cure(*methods: str) -> Callable[[Findings, Preset], Judged]:
    def judge(q: Findings, preset: Preset) -> Judged:
        fgsm = q["methods"]["fgsm"]
        gone = [b for b, cell in fgsm.items() if cell["collapsed"]]
        if not gone:
            raise NotTestable("FGSM did not collapse")
        cells = {m: [q["methods"][m][b] for b in gone] for m in methods if m in q["methods"]}
        if len(cells) < len(methods):
            raise NotTestable(f"trained: {', '.join(q['methods'])}")
        found = "; ".join(
            f"{m} {', '.join(in_words(c['robust']) for c in own)}" for m, own in cells.items()
        )
        return found, _keep(
            {f"fgsm at beta {b}": fgsm[b] for b in gone},
            {f"{m} at beta {b}": c for m in cells for b, c in zip(gone, cells[m], strict=True)},
        )

    return judge


def _keep(untreated: Findings, treated: Findings) -> bool:
    """Whether treatment keeps from the collapse: a single collapse says that it does not, none
    says that it does where every network collapses without. Raises where that is not so, and
    where one has nothing to lose: it resists neither one step nor many."""
    if any(own["collapsed"] for own in treated.values()):
        return False
    for name, own in untreated.items():
        if own["collapsed"] < 1:
            gone = f"{round(own['collapsed'] * own['networks'])} of {own['networks']} networks"
            raise NotTestable(f"{name}: {gone} collapse; that a treated one does not may be chance")
    for name, own in treated.items():
        clean, robust = known(own["clean"]), known(own["robust"])
        if robust < t.LEFT * clean:
            found = f"{in_words(own['clean'])} clean, {in_words(own['robust'])} under attack"
            raise NotTestable(f"{name} has not collapsed and is not robust either: {found}")
    return True


def uses_images_first(q: Findings, preset: Preset) -> Judged:
    _collapsed(q)
    own, clean = q["before"]["original"], q["before"]["clean"]
    found = f"clean {in_words(clean)}, without the feature {in_words(own)}"
    return found, known(own) >= t.USED * known(clean)


def follows_feature(q: Findings, preset: Preset) -> Judged:
    _collapsed(q)
    before, after = (q[side]["feature"] for side in ("before", "after"))
    found = f"{in_words(before)} before, {in_words(after)} after"
    return found, known(after) - known(before) > t.TURNED


def misaligns(q: Findings, preset: Preset) -> Judged:
    return _falls(q, "gradient_cosine", t.ALIGNED, t.MISALIGNED)


def perturbs_otherwise(q: Findings, preset: Preset) -> Judged:
    return _falls(q, "perturbation_cosine", t.SAME_WAY, t.OTHER_WAY)


def _falls(q: Findings, name: str, before: float, after: float) -> Judged:
    _collapsed(q)
    values = [known(q[side][name]) for side in ("before", "after")]
    return f"{values[0]:.3f} before, {values[1]:.3f} after", (
        values[0] >= before and values[1] <= after
    )


def curvature(q: Findings, preset: Preset) -> Judged:
    _collapsed(q)
    before, after = (known(q[side]["input_curvature"]) for side in ("before", "after"))
    pgd = known(q["pgd, last"]["input_curvature"])
    found = f"{before:.3g} before, {after:.3g} after; PGD at the end {pgd:.3g}"
    return found, after > t.EXPLODED * before and after > t.EXPLODED * pgd


def without(name: str, *cured: str) -> Callable[[Findings, Preset], Judged]:
    def judge(q: Findings, preset: Preset) -> Judged:
        if not q[name]["collapsed"]:
            raise NotTestable(f"{name}: no collapse to be rid of")
        found = "; ".join(f"{kind}: {in_words(q[kind]['robust'])}" for kind in (name, *cured))
        return f"robust accuracy, {found}", _keep(
            {name: q[name]}, {kind: q[kind] for kind in cured}
        )

    return judge


def changes(q: Findings, preset: Preset) -> Judged:
    if q["controls that collapse"]:
        raise NotTestable("without the feature the training collapses as well: no control")
    return _across(q, q["change"]["collapse minus control"], t.CHANGED)


def deeper(q: Findings, preset: Preset) -> Judged:
    return _across(q, q["change"]["last block minus first"], t.DEEPER)


def _across(q: Findings, estimate: Any, least: float) -> Judged:
    if not q["collapsed"]:
        raise NotTestable("no training at focus was robust and collapsed then")
    return in_words(estimate), clear(estimate, least)
