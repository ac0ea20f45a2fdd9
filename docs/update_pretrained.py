"""Puts the networks that come with the package into docs/own_networks.md, from their headers."""

from pathlib import Path
from typing import Any

from repsim_fast import models

PAGE = Path(__file__).parent / "own_networks.md"
START, END = "<!-- pretrained: docs/update_pretrained.py -->\n", "<!-- end -->"
HEAD = "| name | trained by | images | correct | under PGD | under AutoAttack |\n"
LINE = "|---" * 6 + "|\n"


def updated(page: str) -> str:
    """The page with a row for each network between its markers."""
    before, rest = page.split(START)
    rows = (_row(name, models.load_pretrained(name)[1]) for name in models.available_pretrained())
    return before + START + HEAD + LINE + "".join(rows) + END + rest.split(END, 1)[1]


def _row(name: str, about: dict[str, Any]) -> str:
    images = int(about["recipe"]["dataset"].split()[-1])
    under = about.get("autoattack_accuracy")
    return (
        f"| `{name}` | {about['method']}, {about['epochs']} epochs of {images:,} images | "
        f"{about['evaluated_images']:,} | {about['clean_accuracy']:.3f} | "
        f"{about['robust_accuracy']:.3f} | "
        + ("" if under is None else f"{under:.3f} of {about['autoattack_images']:,}")
        + " |\n"
    )


def main() -> None:
    """Writes the table between the markers of the page."""
    PAGE.write_text(updated(PAGE.read_text()))


if __name__ == "__main__":
    main()
