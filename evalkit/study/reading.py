"""From the text of a study file to a ``Study``, or to all its faults at once."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from evalkit.errors import Fault, StudyError
from evalkit.study.complete import complete
from evalkit.study.lines import KeyPath, Lines
from evalkit.study.model import LONGEST, PANEL_METHODS, Protocol, Study
from evalkit.study.parts import Parts
from evalkit.study.rules import contradictions
from evalkit.study.translate import Issue, frozen, issues

Model = TypeVar("Model", bound=BaseModel)

FILE_NAME = "study.toml"
_AT_LINE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")
_TWICE = ("Cannot overwrite", "Cannot declare", "Cannot mutate", "Duplicate inline table key")


def read(path: str | Path, methods: Mapping[str, type[BaseModel]] | None = None) -> Study:
    """Read a study file.

    Parameters
    ----------
    path:
        The file, or the folder in which ``study.toml`` lies.
    methods:
        The settings model of each method, so that faults in settings are reported with all the others.

    Raises
    ------
    StudyError
        With all faults of the file, each with its line.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(Fault("study.file_missing", {"file": path.name}, path.name)) from None
    except OSError:
        raise StudyError(Fault("study.file_unreadable", {"file": path.name}, path.name)) from None
    try:
        text = content.decode("utf-8-sig")  # Notepad may put a mark in front
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyError(Fault("study.not_utf8", {"file": path.name}, _place(path, line))) from None
    return parse(text, path, methods)


def parse(text: str, path: str | Path = FILE_NAME, methods: Mapping[str, type[BaseModel]] | None = None) -> Study:
    """Read a study from its text; ``path`` says where it (would) lie, for messages and for its data files.

    ``methods`` as in :func:`read`.

    Raises
    ------
    StudyError
        With all faults of the text, each with its line.
    """
    path = Path(path)
    raw = _toml(text, path)
    _prepare(raw)
    found, filled = complete(raw, path.parent)
    try:
        Protocol.model_validate(raw)
    except ValidationError as error:
        found += issues(error, Protocol, raw, path.name)
    faulty = {issue.path for issue in found}
    found = [issue for issue in found if not _left_to_a_layout(issue, faulty)]
    found += [issue for issue in contradictions(Parts(raw, found), path.name) if issue.path not in faulty]
    found += _settings(raw, methods or {})
    if found:
        raise StudyError(_faults(found, text, path))
    checksum = hashlib.sha256(text.encode("utf-8")).hexdigest()
    about = {"path": path, "text": text, "sha256": checksum, "filled": filled}
    return Study.model_validate({**raw, **about})


def bind(model: type[Model], settings: Mapping[str, Any], study: Study, analysis_index: int) -> Model:
    """Validate the settings of one analysis as the method's own model.

    Parameters
    ----------
    model:
        The method's ``Settings``. Derive it from ``evalkit.study.Frozen`` and use tuples for several values. A check of
        its own raises ``pydantic_core.PydanticCustomError`` whose type is a fault code with a dot.
    settings:
        Usually ``study.analyses[analysis_index].settings``.
    study, analysis_index:
        Where the settings stand, for the line numbers.

    Raises
    ------
    StudyError
        With all faults of these settings, each with its line.
    """
    raw = frozen(dict(settings))
    found = _own(model, raw, analysis_index)
    if found:
        raise StudyError(_faults(found, study.text, study.path))
    return model.model_validate(raw, extra="forbid")


def _own(model: type[BaseModel], raw: Any, index: int) -> list[Issue]:
    """Faults in the settings of one analysis."""
    try:
        model.model_validate(raw, extra="forbid")
    except ValidationError as error:
        found = issues(error, model, raw, "[[analysis]]")
        return [Issue(("analysis", index, *issue.path), issue.code, issue.params) for issue in found]
    return []


def _settings(raw: Mapping[str, Any], methods: Mapping[str, type[BaseModel]]) -> list[Issue]:
    """Faults in the settings of every analysis whose method is known."""
    analyses = raw.get("analysis")
    found: list[Issue] = []
    for index, item in enumerate(analyses if isinstance(analyses, tuple) else ()):
        name = item.get("method") if isinstance(item, dict) else None
        if isinstance(name, str) and name in methods:
            found += _own(methods[name], item["settings"], index)
    return found


def template(lang: str) -> str:
    """The commented study file that ``evalkit init`` writes, in Dutch (``nl``) or English (``en``)."""
    return files("evalkit.study").joinpath(f"template.{lang}.toml").read_text("utf-8")


def _toml(text: str, path: Path) -> dict[str, Any]:
    if not text.strip():
        raise StudyError(Fault("study.file_empty", {"file": path.name}, path.name))
    try:
        raw: dict[str, Any] = frozen(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = _AT_LINE.search(message)
        line = int(at[1]) if at and at[1] else text.rstrip().count("\n") + 1
        reason = _AT_LINE.sub("", message)
        code = "study.key_twice" if reason.startswith(_TWICE) else "study.syntax"
        raise StudyError(Fault(code, {"reason": reason}, _place(path, line))) from None
    return raw


def _prepare(raw: dict[str, Any]) -> None:
    """In place: a method's settings go together; table and panel studies get what they need not say."""
    if isinstance(raw.get("analysis"), tuple):
        raw["analysis"] = tuple(_analysis(item) for item in raw["analysis"])
    ready = "panel" in raw and "data" not in raw and "table" not in raw
    if (ready or _on_panels(raw)) and isinstance(raw.get("treatment"), dict):
        raw["treatment"] = {"versus": "no_adoption", **raw["treatment"]}
    if ready and isinstance(raw.get("time", {}), dict):
        raw["time"] = {"horizon": LONGEST, "follow_up": "available", **raw.get("time", {})}
    table, time = raw.get("table"), raw.get("time", {})
    if isinstance(table, dict) and "data" not in raw and isinstance(time, dict) and "horizon" not in time:
        outcomes = table.get("outcomes")
        columns = outcomes.values() if isinstance(outcomes, dict) else ()
        raw["time"] = {**time, "horizon": max([1, *(len(names) for names in columns if isinstance(names, tuple))])}


def _on_panels(raw: Mapping[str, Any]) -> bool:
    """Whether no analysis starts a clock for persons: every method works on panels."""
    analyses = raw.get("analysis")
    items = [item for item in analyses if isinstance(item, dict)] if isinstance(analyses, tuple) else []
    return "table" not in raw and bool(items) and all(item.get("method") in PANEL_METHODS for item in items)


def _left_to_a_layout(issue: Issue, faulty: Collection[KeyPath]) -> bool:
    """Whether columns are missing only because the layout that would fill them in is faulty."""
    *place, key = issue.path or ("",)
    return issue.code == "study.missing_key" and key == "columns" and (*place, "layout") in faulty


def _analysis(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    own = {key: item[key] for key in ("id", "method") if key in item}
    return {**own, "settings": {key: value for key, value in item.items() if key not in own}}


def _faults(found: Iterable[Issue], text: str, path: Path) -> list[Fault]:
    lines = Lines(text)
    placed = [(lines.find(issue.path), issue) for issue in found]
    placed.sort(key=lambda pair: pair[0])
    return [Fault(issue.code, issue.params, _place(path, line)) for line, issue in placed]


def _place(path: Path, line: int) -> str:
    return f"{path.name} line {line}"
