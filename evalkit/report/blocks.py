"""What a report is made of, in words already and without markup: sections of blocks.

A renderer (HTML now; PDF and Word take the same blocks) only lays them out. Every picture carries its alternative
text and its numbers as a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

Tone = Literal["plain", "good", "warn", "fail"]


@dataclass(frozen=True)
class Text:
    """A paragraph; ``lead`` is its opening sentence in heavier type."""

    text: str
    lead: str = ""
    kind: str = "text"


@dataclass(frozen=True)
class Heading:
    """A heading one level under the section's title."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Items:
    """A list of sentences, each with an optional term before it; ``title`` introduces the list."""

    items: tuple[tuple[str, str], ...]
    title: str = ""
    kind: str = "items"


@dataclass(frozen=True)
class Callout:
    """A framed remark: ``tone`` gives its colour, ``title`` says the same in words."""

    title: str
    text: str
    tone: Tone = "plain"
    items: tuple[str, ...] = ()
    kind: str = "callout"


@dataclass(frozen=True)
class Grid:
    """A table. The first column holds the row headers; ``numeric`` says which columns align right.

    ``quiet`` keeps the caption for screen readers only, where a heading says the same.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    note: str = ""
    quiet: bool = False
    kind: str = "grid"

    def __post_init__(self) -> None:
        for row in (self.numeric, *self.rows):
            if len(row) != len(self.head):
                raise ValueError(f"table {self.caption!r}: a row has {len(row)} cells, expected {len(self.head)}")


@dataclass(frozen=True)
class Picture:
    """A PNG figure with what it shows in words (``alt``), how to read it, and its numbers."""

    png: bytes
    alt: str
    caption: str
    data: Grid
    kind: str = "picture"


@dataclass(frozen=True)
class Bar:
    """One line of a comparison out of a hundred people: ``share`` is a fraction between 0 and 1."""

    label: str
    text: str
    share: float
    main: bool


@dataclass(frozen=True)
class Bars:
    """Out of a hundred people: with and without, at one moment."""

    title: str
    bars: tuple[Bar, ...]
    text: str
    kind: str = "bars"


@dataclass(frozen=True)
class FlowBox:
    """A box of the flow chart: its words, its count, a second count, and who left after it."""

    text: str
    count: str
    second: str
    out: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class FlowArm:
    """One arm of the flow chart, from the first box to the last."""

    title: str
    boxes: tuple[FlowBox, ...]
    main: bool


@dataclass(frozen=True)
class Flow:
    """The flow chart: arms side by side."""

    label: str
    arms: tuple[FlowArm, ...]
    kind: str = "flow"


@dataclass(frozen=True)
class Code:
    """Text to be shown as it is."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Fold:
    """Blocks that open on demand."""

    summary: str
    blocks: tuple[Block, ...]
    kind: str = "fold"


Block = Text | Heading | Items | Callout | Grid | Picture | Bars | Flow | Code | Fold


@dataclass(frozen=True)
class Section:
    """A section of the report: anchor, title and blocks."""

    id: str
    title: str
    blocks: tuple[Block, ...]


def words(parts: Iterable[Any]) -> str:
    """All text of sections or blocks in reading order, without what is shown as it is (``Code``)."""
    return " ".join(found for part in parts for found in _words(part))


def _words(part: Any) -> Iterable[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, tuple):
        for item in part:
            yield from _words(item)
    elif is_dataclass(part) and not isinstance(part, Code):
        for field in fields(part):
            yield from _words(getattr(part, field.name)) if field.name not in ("kind", "id", "tone") else ()
