"""The table as a value, and its words: text, Markdown, HTML and CSV in Dutch or English."""

from __future__ import annotations

import html as escaping
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalkit.balance import BinaryConvention, Target
from evalkit.text import number, say, share

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["number", "effective", "mean_sd", "median_iqr", "level", "missing"]
Hidden = Literal["", "small", "cover"]
COLUMNS = ("treated_before", "comparison_before", "treated_after", "comparison_after")
DIFFERENCE = 3
"""Decimals of a standardised difference."""


@dataclass(frozen=True)
class Cell:
    """One figure of one column.

    ``count`` people and their ``share``; ``first``, ``second``, ``third``: mean and SD, or median and quartiles.
    ``hidden``: ``""`` shown; ``small`` fewer than the minimum; ``cover`` hidden so that a small one cannot be derived.
    """

    count: float | None = None
    share: float | None = None
    first: float | None = None
    second: float | None = None
    third: float | None = None
    hidden: Hidden = ""

    def emptied(self, why: Hidden) -> Cell:
        """The cell without its figures."""
        return Cell(hidden=why)


@dataclass(frozen=True)
class Row:
    """One line: a variable's mean or median, one of its levels, or how many values are missing.

    ``smd_before`` and ``smd_after`` are None where they make no sense (numbers of people, medians, missing values when
    there are none) or are hidden with a cell.
    """

    kind: Kind
    variable: str
    level: str
    cells: tuple[Cell, ...]
    smd_before: float | None
    smd_after: float | None


@dataclass(frozen=True)
class TableOne:
    """The table's figures. ``columns`` name the cells of each row; without weights only those before adjustment.

    ``minimum``: fewest people shown; 0 when nothing was hidden. ``labels``: own words for variables and levels
    (``name`` or ``name=level``).
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    target: Target
    binary_convention: BinaryConvention
    minimum: int
    labels: Mapping[str, str]

    def frame(self) -> pd.DataFrame:
        """Every figure as a number, one row a line and column of the table; hidden ones are missing."""
        import pandas as pd

        made = [
            {
                "kind": row.kind,
                "variable": row.variable,
                "level": row.level,
                "column": column,
                "count": cell.count,
                "share": cell.share,
                "first": cell.first,
                "second": cell.second,
                "third": cell.third,
                "hidden": cell.hidden,
                "smd": row.smd_before if column.endswith("before") else row.smd_after,
            }
            for row in self.rows
            for column, cell in zip(self.columns, row.cells, strict=True)
        ]
        return pd.DataFrame(made)

    def words(self, lang: str = "en") -> pd.DataFrame:
        """The table as printed: texts in the reader's language."""
        import pandas as pd

        after = len(self.columns) > 2
        heads = [say(f"table_one.{name if after else name.split('_')[0]}", lang) for name in self.columns]
        smd = ["smd_before", "smd_after"] if after else ["smd"]
        heads = [say("table_one.characteristic", lang), *heads, *(say(f"table_one.{name}", lang) for name in smd)]
        lines = []
        for row in self.rows:
            differences = [row.smd_before, row.smd_after] if after else [row.smd_before]
            places = _decimals(row)
            lines.append(
                [
                    self._name(row, lang),
                    *(self._cell(row, cell, lang, places) for cell in row.cells),
                    *("" if d is None else number(d, lang, DIFFERENCE) for d in differences),
                ]
            )
        return pd.DataFrame(lines, columns=heads)

    def text(self, lang: str = "en") -> str:
        """Plain text, columns aligned."""
        table = self.words(lang)
        lines = [list(table.columns), *table.to_numpy().tolist()]
        widths = [max(len(line[j]) for line in lines) for j in range(len(table.columns))]
        return "\n".join(
            "  ".join(c.ljust(w) if j == 0 else c.rjust(w) for j, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        )

    def markdown(self, lang: str = "en") -> str:
        """A table in Markdown."""
        table = self.words(lang)
        lines = [list(table.columns), *table.to_numpy().tolist()]
        made = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([made[0], "|---" + "|--:" * (len(table.columns) - 1) + "|", *made[1:]])

    def html(self, lang: str = "en") -> str:
        """A table element, everything escaped."""
        table = self.words(lang)

        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escaping.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(line(cells, "td") for cells in table.to_numpy().tolist())
        head = line(list(table.columns), "th")
        return f'<table class="table-one" lang="{lang}"><thead>{head}</thead><tbody>{body}</tbody></table>'

    def csv(self, lang: str = "en") -> str:
        """The printed table as CSV; semicolons in Dutch, where the comma is the decimal sign."""
        return str(self.words(lang).to_csv(index=False, sep=";" if lang == "nl" else ",", lineterminator="\n"))

    def _name(self, row: Row, lang: str) -> str:
        if row.kind in ("number", "effective"):
            return say(f"table_one.{row.kind}", lang)
        name = self.labels.get(row.variable, row.variable)
        level = self.labels.get(f"{row.variable}={row.level}", row.level)
        if f"{row.variable}={row.level}" not in self.labels and row.level in ("True", "False"):
            level = say("table_one.yes" if row.level == "True" else "table_one.no", lang)
        return say(f"table_one.{row.kind}", lang, name=name, level=level)

    def _cell(self, row: Row, cell: Cell, lang: str, places: int) -> str:
        if cell.hidden == "small":
            return say("table_one.below", lang, minimum=self.minimum)
        if cell.hidden == "cover":
            return say("table_one.hidden", lang)
        whole = 0 if self.minimum else 1
        if row.kind == "number":
            return number(cell.count, lang)
        if row.kind == "effective":
            return number(cell.count, lang, 1)
        if row.kind in ("level", "missing"):
            percent = share(cell.share, lang, whole)
            return percent if cell.count is None else f"{number(cell.count, lang)} ({percent})"
        if cell.first is None:
            return number(None, lang)
        if row.kind == "mean_sd":
            return f"{number(cell.first, lang, places)} ({number(cell.second, lang, places)})"
        between = say("table_one.between", lang)
        low, high = number(cell.second, lang, places), number(cell.third, lang, places)
        return f"{number(cell.first, lang, places)} [{low}{between}{high}]"


def _decimals(row: Row) -> int:
    """Decimals that suit a line's largest figure: amounts whole, ages one, shares two."""
    figures = [value for cell in row.cells for value in (cell.first, cell.second, cell.third) if value is not None]
    size = max(map(abs, figures), default=0.0)
    return 0 if size >= 1000 else (1 if size >= 10 else 2)
