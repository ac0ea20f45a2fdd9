"""Tables in README.md and benchmarks/README.md, from the results files.

    python benchmarks/readme_table.py

python_tests/benchmarks/test_readme_table.py sees to it that they agree with the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
OF_TRAINING = Path(__file__).parent / "README.md"
RESULTS = Path(__file__).parent / "results" / "amd-epyc-family-26-1-threads"
OF_L1 = Path(__file__).parent / "results" / "l1_attack.json"
BEGIN, END = "<!-- speed: benchmarks/readme_table.py -->\n", "<!-- end -->\n"
BEGIN_L1 = "<!-- l1: benchmarks/readme_table.py -->\n"
BEGIN_MODELS = "<!-- models: benchmarks/readme_table.py -->\n"
BEGIN_MIXED = "<!-- mixed precision: benchmarks/readme_table.py -->\n"
L1_STEPS = (10, 20, 50, 100)


def rows(name: str) -> dict[str, dict[str, Any]]:
    """Rows of a results file, by case, each with the machine and versions it was measured with."""
    held = json.loads((RESULTS / f"{name}.json").read_text())
    return {row["case"]: {"machine": held["machine"], **row} for row in held["rows"]}


def times_as_fast(slow: dict[str, Any], fast: dict[str, Any]) -> float:
    """Ratio of the medians of two rows of one machine and version."""
    if slow["machine"] != fast["machine"]:
        raise SystemExit(f"{slow['case']} and {fast['case']} were not measured together")
    ratio: float = slow["median_s"] / fast["median_s"]
    return ratio


def layer_grid() -> list[tuple[str, str]]:
    """The comparison of two networks, ours and the fastest package."""
    grid = rows("layer_grid")
    lines = []
    for case, who in (
        ("float32", "repsim_fast"),
        ("bfloat16", 'repsim_fast, precision="bfloat16"'),
        ("pytorch-cka", "pytorch-cka"),
    ):
        row = grid[case]
        lines.append(
            (
                f"CKA of ResNet-18 x ResNet-34, 50 x 90 layers, 512 random images: {who}",
                f"{row['ratio_to_forwards']:.2f} times the two bare forward passes, "
                f"largest error of a cell {row['max_error']:.2g}",
            )
        )
    return lines


def speedups() -> list[tuple[str, str]]:
    """Time of the alternative over ours."""
    gram, cross, measures = rows("centered_gram"), rows("cross_gram"), rows("measures")
    svd, step, attack = rows("batched_svd"), rows("pgd_steps"), rows("pgd_end_to_end")
    plain = gram["512x16384 float32"]["speedup_over_plain_torch"]
    half = gram["512x16384 bfloat16 packed"]["speedup_over_plain_torch"]
    product = cross["2000x512, 2000x512 float32 torch"]["speedup"]
    values = svd["values 512x128x128 torch.float32 ours"]["speedup_over_torch"]
    cca = measures["cca 2000x512 10x10 repsim_fast"]["speedup"]
    pair = "procrustes_similarity pair 2000x512"
    scipy = measures[f"{pair} scipy.linalg.orthogonal_procrustes"]["speedup"]
    metrics = measures[f"{pair} torchmetrics ProcrustesDisparity"]["speedup"]
    numpy = measures["cka pair 2000x512 numpy"]["speedup"]
    large = "linf (32, 3, 224, 224)"
    linf = times_as_fast(step[f"{large} careful torch, in place"], step[f"{large} ours, in place"])
    pgd = attack["width 16, batch 64, folded, channels last"]["ratio_to_strongest_peer"]
    return [
        ("Centred Gram, 512 x 16384", f"{plain:.1f} times as fast as torch, 16-bit {half:.1f}"),
        ("Products of two layers' features, 2000 x 512", f"{product:.1f} times as fast as torch"),
        ("Singular values of 512 matrices 128 x 128", f"{values:.1f} times as fast as torch"),
        ("CCA of 10 x 10 layers, 2000 x 512", f"{cca:.1f} times as fast as careful torch"),
        (
            "Procrustes of one pair, 2000 x 512",
            f"{scipy:.1f} times as fast as SciPy, {metrics:.1f} as torchmetrics",
        ),
        ("Linear CKA of one pair, 2000 x 512", f"{numpy:.2f} times as fast as NumPy"),
        (
            "Linf step of an attack, 32 x 3 x 224 x 224",
            f"{linf:.1f} times as fast as careful torch",
        ),
        (
            "PGD-10, ResNet-18 of width 16, 64 images 3 x 32 x 32, folded and channels last",
            f"{pgd:.2f} of the textbook loop's time",
        ),
    ]


def table() -> str:
    """The table as Markdown."""
    at = json.loads((RESULTS / "layer_grid.json").read_text())["machine"]
    lines = [f"| {at['processor']}, {_threads(at)}, float32 | |", "|---|---|"]
    lines += [f"| {what} | {figure} |" for what, figure in layer_grid() + speedups()]
    return "\n".join(lines) + "\n"


def measured(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of the results files of that name, each with its machine."""
    found = []
    for file in sorted((Path(__file__).parent / "results").glob(f"*/{name}.json")):
        held = json.loads(file.read_text())
        found += [(row, row.get("machine", held["machine"])) for row in held["rows"]]
    return found


def training_table() -> str:
    """Times of an epoch of robust training over those of textbook loops, as Markdown."""
    lines = ["| machine | epoch of | time over the textbook loop's |", "|---|---|---|"]
    for row, at in measured("training_speed"):
        where = f"{at['processor']}, {at['threads']} threads, {at['bfloat16']}"
        lines.append(f"| {where} | {row['case']} | {row['ratio_to_textbook']:.2f} |")
    return "\n".join(lines) + "\n"


def models_table() -> str:
    """Comparisons of default layers over the bare forward passes, as Markdown."""
    heads = (
        "machine | models | layers | operations | forwards with channels last | float32 "
        "| bfloat16 products"
    )
    lines = [f"| {heads} |", "|---|---|---|---|---|---|---|"]
    for file in sorted((Path(__file__).parent / "results").glob("*/many_models.json")):
        held = json.loads(file.read_text())
        found = {row["case"]: row for row in held["rows"]}
        for case in (
            name.removesuffix(", forwards") for name in found if name.endswith("forwards")
        ):
            kinds = ("forwards with channels last", "float32", "bfloat16")
            rows = [found[f"{case}, {kind}"] for kind in kinds]
            at = rows[0].get("machine", held["machine"])
            counted = f"{rows[-1]['operations_to_forwards']:.2f}"
            cells = " | ".join([counted, *(f"{row['ratio_to_forwards']:.2f}" for row in rows)])
            where = f"{at['processor']}, {_threads(at)}"
            lines.append(f"| {where} | {case} | {_layers(rows[0])} | {cells} |")
    return "\n".join(lines) + "\n"


def mixed_table() -> str:
    """Comparisons in mixed precision over the forward passes in it, as Markdown."""
    lines = ["| machine | models | layers | over the forwards |", "|---|---|---|---|"]
    for row, at in measured("mixed_precision"):
        models, _, what = row["case"].rpartition(", ")
        if what == "compare":
            where = f"{at['processor']}, {_threads(at)}, {row['multiplied_by']}"
            cells = f"{models} | {_layers(row)} | {row['ratio_to_forwards']:.2f}"
            lines.append(f"| {where} | {cells} |")
    return "\n".join(lines) + "\n"


def _threads(at: dict[str, Any]) -> str:
    return f"{at['threads']} thread{'s' * (at['threads'] > 1)}"


def _layers(row: dict[str, Any]) -> str:
    layers = row["layers"]
    return " and ".join(map(str, layers)) if isinstance(layers, list) else str(layers)


def l1_table() -> str:
    """Images that L1-APGD and its authors' attack leave robust, as Markdown."""
    held = json.loads(OF_L1.read_text())
    found = {row["case"]: row for row in held["rows"]}
    heads = " | ".join(f"{n} steps" for n in L1_STEPS)
    lines = [f"| robust images, ours / theirs | {heads} |", "|---|" + "---|" * len(L1_STEPS)]
    sets = {"digits": "digits", "cifar10": "CIFAR-10"}
    parts = {"took part in choosing": "seeds that took part", "took no part": "other seeds"}
    for data, name in sets.items():
        for part, words in parts.items():
            lines.append(_l1_line(f"{name}, {words}", f"{data}, {part}: ", found))
        lines.append(_l1_line(f"{name}, all", f"{data}: ", found))
    lines.append(_l1_line("all", "", found))
    lines.append("")
    for name, prefix in (("In total", ""), ("On digits", "digits: "), ("On CIFAR-10", "cifar10: ")):
        weaker = [n for n in L1_STEPS if _more(found[f"{prefix}{n} steps"])]
        where = f"at {', '.join(map(str, weaker))}" if weaker else "at no number of"
        lines.append(f"- {name} ours leaves more images robust than theirs {where} steps.")
    return "\n".join(lines) + "\n"


def _l1_line(name: str, prefix: str, found: dict[str, dict[str, Any]]) -> str:
    here = [found[f"{prefix}{n} steps"] for n in L1_STEPS]
    cells = " | ".join(f"{row['ours']} / {row['theirs']}" for row in here)
    return f"| {name} ({here[0]['runs']} runs, {here[0]['images']} images) | {cells} |"


def _more(row: dict[str, Any]) -> bool:
    return bool(row["ours"] > row["theirs"])


def written(readme: str, content: str | None = None, begin: str = BEGIN) -> str:
    """A README with its table, by default that of the first one, between the marks."""
    before, _, rest = readme.partition(begin)
    _, _, after = rest.partition(END)
    return before + begin + (table() if content is None else content) + END + after


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
    with_training = written(OF_TRAINING.read_text(), training_table())
    with_models = written(with_training, models_table(), BEGIN_MODELS)
    with_mixed = written(with_models, mixed_table(), BEGIN_MIXED)
    OF_TRAINING.write_text(written(with_mixed, l1_table(), BEGIN_L1))
