"""From a study to the folder of its twin: read, tell, check, draw, write in the study's own layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from evalkit.analyses import all_settings
from evalkit.errors import Fault, UsageError
from evalkit.files import write_files
from evalkit.register import read as read_register
from evalkit.register.dialect import Dialect, Notice, unheard
from evalkit.simulate.aggregates import FILE, Aggregates
from evalkit.simulate.auditing import audit
from evalkit.simulate.blueprint import USUAL, Effect
from evalkit.simulate.counting import aggregates
from evalkit.simulate.facts import refuse
from evalkit.simulate.own_layout import check_text, code_lists, study_text, table_contents, table_files
from evalkit.simulate.truth import document
from evalkit.simulate.twin import known_effect, twin
from evalkit.study import FILE_NAME, Study, read

TRUTH = "truth.json"
Progress = Callable[..., None]


@dataclass(frozen=True)
class Made:
    """What a twin consists of, and what the user should know of it.

    Attributes
    ----------
    files: contents by path inside the folder of the twin.
    study: where its study file lies.
    persons: how many it has.
    converted: files that are CSV here and were not in the study.
    empty: columns of persons of which nothing is told.
    without_truth: outcomes whose effect is not worked out.
    """

    files: dict[str, bytes]
    study: Path
    persons: int
    converted: tuple[str, ...]
    empty: tuple[str, ...]
    without_truth: tuple[str, ...]

    def remarks(self) -> list[tuple[str, dict[str, str]]]:
        """What there is to say, as keys of sentences under ``cli.twin.`` with their words."""
        named = [
            ("converted", "files", self.converted),
            ("empty", "columns", self.empty),
            ("without_truth", "outcomes", self.without_truth),
        ]
        return [(key, {word: ", ".join(names)}) for key, word, names in named if names] + [("done", {})]


def _silent(step: str, **params: int) -> None:
    """No progress."""


def gather(path: Path, notice: Notice = unheard, progress: Progress = _silent) -> tuple[Study, Aggregates]:
    """Read a study and its register, and tell what may be told of it. The only step that sees the register.

    Raises
    ------
    StudyError, DataError
        As for any study.
    UsageError, DisclosureError
        See :func:`evalkit.simulate.aggregates`; what was counted has passed :func:`audit`.
    """
    study = read(path, all_settings())
    refuse(study)
    found: list[Dialect] = []

    def heard(dialect: Dialect) -> None:
        found.append(dialect)
        notice(dialect)

    progress("read")
    register = read_register(study, heard)
    progress("aggregates")
    told = aggregates(study, register, found)
    audit(told.document, study.disclosure.minimum)
    return study, told


def load(path: Path, study_path: Path) -> tuple[Study, Aggregates]:
    """A study file, and aggregates that were written before; no data are read.

    Raises
    ------
    StudyError
        When the study file is wrong.
    UsageError
        ``twin.unreadable``; ``twin.other_study`` when the two do not belong together.
    DisclosureError
        When the aggregates were changed into something that may not be told; see :func:`audit`.
    """
    study = read(study_path, all_settings())
    refuse(study)
    path = path / FILE if path.is_dir() else path
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UsageError(Fault("twin.unreadable", {"file": path.name, "schema": 1}, path.name)) from None
    told = Aggregates.from_json(text, path.name)
    audit(json.loads(text), study.disclosure.minimum)
    assert study.data is not None
    mapped = {name for name in (*study.data.persons.columns, *study.data.changes) if name != "person"}
    same = (
        told.window == (study.data.window.first, study.data.window.last)
        and {column.name for column in told.columns} == mapped
        and told.instruments[0].type == study.treatment.instrument
        and (told.jobs is None) == (study.data.jobs is None)
    )
    if not same:
        raise UsageError(Fault("twin.other_study", {"file": path.name}, path.name))
    return study, told


def make(
    study: Study,
    told: Aggregates,
    persons: int | None = None,
    seed: int = 1,
    effect: Effect = USUAL,
) -> Made:
    """The files of a twin: tables, study file, aggregates and the known effect.

    Parameters
    ----------
    persons: how many; None: as many as the register has, rounded.
    """
    assert study.data is not None
    number = told.persons if persons is None else persons
    tables = twin(told, number, seed, effect)
    true = known_effect(study, told, effect)
    text = study_text(study)
    check_text(study, text)
    folder = study.data.folder
    inside = {**table_contents(study, tables, told.layouts), TRUTH: _json(document(true))}
    files = {str(PurePosixPath(folder.replace("\\", "/")) / name): content for name, content in inside.items()}
    files |= code_lists(study) | {FILE: told.to_json().encode(), FILE_NAME: text.encode()}
    names = table_files(study)
    return Made(
        files=files,
        study=Path(FILE_NAME),
        persons=number,
        converted=tuple(n for t, n in names.items() if n != study.data.tables[t].file.replace("\\", "/")),
        empty=tuple(column.name for column in told.columns if column.kind == "empty"),
        without_truth=tuple(outcome.name for outcome in study.outcomes if outcome.name not in true),
    )


def write_twin(
    folder: Path,
    like: Path,
    source: Path | None = None,
    persons: int | None = None,
    seed: int = 1,
    effect: str | None = None,
    notice: Notice = unheard,
    progress: Progress = _silent,
) -> Made:
    """Make a twin and write it into a folder, as ``evalkit simulate --like`` does; nothing is overwritten.

    Parameters
    ----------
    like: the study, or its folder.
    source: aggregates that were written before; None: they are made from the register.
    persons, seed: see :func:`make`.
    effect: as :meth:`Effect.read` takes it.
    notice, progress: are told how each file turned out to be written, and each step.

    Raises
    ------
    UsageError
        ``cli.exists``, and what :func:`gather`, :func:`load` and :meth:`Effect.read` raise.
    """
    wanted = USUAL if effect is None else Effect.read(effect)
    _refuse_existing(folder / FILE_NAME)
    study, told = gather(like, notice, progress) if source is None else load(source, like)
    progress("twin", persons=told.persons if persons is None else persons)
    made = make(study, told, persons, seed, wanted)
    for name in made.files:
        _refuse_existing(folder / name)
    write_files(folder, made.files)
    progress("done")
    return replace(made, study=folder / made.study)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UsageError(Fault("cli.exists", {"path": str(path)}))


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
