"""What one kind of fault did: a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class Row:
    """Counts of one kind of fault.

    Attributes:
        fault: What was done.
        promise: What counts as survived.
        survived: It went on, or was made harmless, as promised.
        refused: A documented error, with a message.
        lost: Anything else: a crash, a hang, other bits, work beyond what is promised.
        notes: The first few losses, for those who mend them.
    """

    fault: str
    promise: str
    survived: int = 0
    refused: int = 0
    lost: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.survived + self.refused + self.lost

    def count(self, outcome: str, note: str = "") -> None:
        """Add one: "survived", "refused" or "lost"."""
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome == "lost" and len(self.notes) < 20:
            self.notes.append(note[:1000])


Fault = Callable[..., Row]
COLUMNS = ("fault", "tried", "survived", "refused", "lost", "survived means")


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.fault,
        *(f"{n:,}" for n in (row.tried, row.survived, row.refused, row.lost)),
        row.promise,
    )


def markdown(rows: Iterable[Row]) -> str:
    """The table."""
    lines = [COLUMNS, ["---", *["---:"] * 4, "---"], *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
