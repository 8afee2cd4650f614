"""How a number looks in a table, and a table on a page of Markdown: what all tables of the report share."""

from collections.abc import Sequence

NOTHING = "-"


def format_figure(value: float | None) -> str:
    """Three significant digits, thousands with a comma, `-` for nothing: 17,312 or 0.0571 or 4.21."""
    if value is None:
        return NOTHING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table: the first columns are `words`, the others numbers and to the right."""
    aligned = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, aligned, *rows])


def format_ratio(ratio: float | None) -> str:
    """Two digits after the point: they swing by a tenth anyway."""
    return NOTHING if ratio is None else f"{ratio:.2f}"
