"""Puts the table of measures into docs/measures.md, between its markers."""

from pathlib import Path

from repsim_fast.similarity import measures_table

START, END = "<!-- measures_table() -->\n", "<!-- end -->"


def main() -> None:
    """Writes the table between the markers of measures.md."""
    path = Path(__file__).parent / "measures.md"
    before, rest = path.read_text().split(START)
    path.write_text(before + START + measures_table() + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
