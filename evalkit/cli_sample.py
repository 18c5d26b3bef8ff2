"""``evalkit sample``: a shape of the register in a file, for those who work on with it themselves."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evalkit.errors import Fault, UsageError


class Lang(StrEnum):
    """Language of messages."""

    nl = "nl"
    en = "en"


class Shape(StrEnum):
    """What to make of the register."""

    panel = "panel"
    episodes = "episodes"
    patterns = "patterns"


class Period(StrEnum):
    """How long a period of a panel is."""

    month = "month"
    quarter = "quarter"
    year = "year"


def sample(
    study: Annotated[Path, typer.Argument(help="The study file, or the folder that holds study.toml.")],
    shape: Annotated[Shape, typer.Option(help="Panel, counting-process episodes, or patterns with a count.")],
    out: Annotated[Path, typer.Option(metavar="<file>", help="A .parquet or .csv file that does not exist.")],
    unit: Annotated[str, typer.Option(metavar="<column>", help="Panel: person, or a column of persons.")] = "person",
    period: Annotated[Period, typer.Option(help="Panel: length of a period.")] = Period.month,
    outcome: Annotated[
        str, typer.Option(metavar="<source>", help="Panel: an outcome or its source; default the primary one.")
    ] = "",
    since_entry: Annotated[
        str, typer.Option(metavar="<months>", help="Cut episodes so many months after entry, such as 3,6,12.")
    ] = "",
    since_start: Annotated[
        str, typer.Option(metavar="<months>", help="Cut episodes so many months after the start, such as 6,12.")
    ] = "",
    planned_end: Annotated[bool, typer.Option("--planned-end", help="Cut episodes at the planned end.")] = False,
    years: Annotated[bool, typer.Option("--years", help="Cut episodes where a calendar year begins.")] = False,
    columns: Annotated[
        str | None, typer.Option(metavar="<names>", help="Covariates between commas; default those of the study.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    lang: Annotated[Lang | None, typer.Option(help="Language of messages (else EVALKIT_LANG or LANG).")] = None,
) -> None:
    """Write the register as panel, episodes or patterns: data on single persons, which must not be shared."""
    from evalkit.analyses import all_settings
    from evalkit.cli import _setup, console
    from evalkit.register import read as read_register
    from evalkit.run import bind_all
    from evalkit.sample import shapes
    from evalkit.sample.shapes.save import check_place, numbers, save
    from evalkit.study import read

    _setup(quiet, False, lang)
    splits = shapes.Splits(numbers(since_entry), numbers(since_start), planned_end, years)
    traits = shapes.Traits(None if columns is None else [name.strip() for name in columns.split(",") if name.strip()])
    check_place(out)
    protocol = read(study, all_settings())
    bind_all(protocol)
    if protocol.data is None:
        raise UsageError(Fault("shapes.no_register"))
    console.progress("read")
    register = read_register(protocol, console.notice)
    console.progress("sample")
    match shape:
        case Shape.panel:
            frame = shapes.panel(register, protocol, outcome or protocol.primary.name, unit=unit, period=period.value)
        case Shape.episodes:
            frame = shapes.episodes(register, protocol, splits, traits)
        case Shape.patterns:
            frame = shapes.patterns(register, protocol, splits, traits)
    saved = save(frame, out, protocol.disclosure.minimum)
    console.progress("done")
    console.say("sample_written", rows=saved.rows, units=saved.units, file=out.name)
    if saved.few:
        console.say("sample_few", few=saved.few, minimum=protocol.disclosure.minimum)
    print(out)
