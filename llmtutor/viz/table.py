"""Tables, every chapter: rows to compare, as HTML for the reader and as text that tests compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from llmtutor.viz.style import number

Cell = str | int | float | None
"""Text as it is; a whole number with all its digits; another as ``viz.style.number`` shows it; None
is an empty cell."""
CELL = "padding:0.25em 0.8em;border-bottom:1px solid var(--pst-color-border,#c9c9c9)"


@dataclass(frozen=True)
class Table:
    """Rows under named columns; shows itself as the last value of a cell.

    >>> Table(("model", "parameters"), (("gpt2", 124_439_808), ("tiny", 65)))
    model   parameters
    gpt2   124,439,808
    tiny            65

    Raises:
        ValueError: no rows, or a row that has not one cell for each column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a table needs at least one row")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"expected {len(self.columns)} cells ({', '.join(self.columns)}), got {row!r}"
                )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}

    def html(self) -> str:
        """The table, as wide as it needs; a narrow page scrolls it and not itself."""
        caption = f'<caption style="caption-side:top">{escape(self.caption)}</caption>'
        head = "".join(
            f'<th scope="col" style="{CELL};text-align:{self._side(j)}">{escape(name)}</th>'
            for j, name in enumerate(self.columns)
        )
        body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        return (
            '<div style="overflow-x:auto" tabindex="0" role="group" aria-label="'
            f'{escape(self.caption or "table")}"><table style="border-collapse:collapse">'
            f"{caption if self.caption else ''}<thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )

    def _cells(self, row: Sequence[Cell]) -> str:
        cells = [
            f'<td style="{CELL};text-align:{self._side(j)}">{escape(_shown(cell))}</td>'
            for j, cell in enumerate(row)
        ]
        name = f'<th scope="row" style="{CELL};font-weight:normal;text-align:{self._side(0)}">'
        cells[0] = f"{name}{escape(_shown(row[0]))}</th>"
        return "".join(cells)

    def __repr__(self) -> str:
        rows = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[j]) for row in rows) for j in range(len(self.columns))]
        lines = []
        for row in rows:
            cells = [
                text.rjust(width) if self._side(j) == "right" else text.ljust(width)
                for j, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([self.caption, *lines] if self.caption else lines)

    def _side(self, j: int) -> str:
        """Columns of numbers are read from their last digit."""
        numbers = all(isinstance(row[j], int | float | None) for row in self.rows)
        return "right" if numbers else "left"


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, int):
        return f"{cell:,}"
    return cell if isinstance(cell, str) else number(cell)
