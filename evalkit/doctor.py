"""What is installed, and what a study still lacks, before anything is run."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from evalkit import __version__
from evalkit.analyses import all_settings
from evalkit.errors import DataError, Fault, StudyError
from evalkit.register.dialect import cell_texts, settle
from evalkit.register.reader import Raw, check_columns
from evalkit.register.schema import Field, fields, wanted
from evalkit.register.sources import read_source
from evalkit.study import FILE_NAME, Source, Study, read
from evalkit.text import say

State = Literal["good", "note", "bad"]
OPTIONAL = ("pyreadstat", "openpyxl", "psycopg", "pyspark")
"""Packages that some sources need and evalkit can do without."""

_SENTENCES = ("purpose", "place")  # parameters that are keys of the catalogue themselves


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: a sentence under ``cli.doctor.`` or a fault."""

    state: State
    key: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    fault: Fault | None = None

    def text(self, lang: str) -> str:
        """The sentence."""
        if self.fault is not None:
            return self.fault.text(lang)
        words = {k: say(f"cli.doctor.{k}.{v}", lang) if k in _SENTENCES else v for k, v in self.params.items()}
        return say(f"cli.doctor.{self.key}", lang, **words)


@dataclass(frozen=True)
class Section:
    """Findings under a heading."""

    key: str
    findings: tuple[Finding, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All sections; exit code 0 when nothing is lacking, 2 for the machine or the study file, 3 for the data."""

    sections: tuple[Section, ...]
    exit_code: int

    def text(self, lang: str) -> str:
        """What was found, for the reader."""
        lines = []
        for section in self.sections:
            lines += ["", say(f"cli.doctor.heading_{section.key}", lang, **section.params)]
            for finding in section.findings:
                mark = "" if finding.state == "good" else say(f"cli.doctor.{finding.state}", lang) + ": "
                lines.append(f"  {mark}{finding.text(lang)}")
        return "\n".join(lines[1:])

    def document(self, lang: str) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "sections": [
                {
                    "section": section.key,
                    "findings": [
                        {"state": f.state, "code": f.fault.code if f.fault else f.key, "message": f.text(lang)}
                        for f in section.findings
                    ],
                }
                for section in self.sections
            ],
            "exit_code": self.exit_code,
        }


def examine(study: Path | None = None) -> Diagnosis:
    """Look at the machine, the packages, the places to write and, when there is one, the study.

    Parameters
    ----------
    study:
        The study file or its folder. Its data are read as ``evalkit check`` would; no effect is worked out.
    """
    sections = [
        Section("machine", (_version(), _capacity(), _fonts())),
        Section("packages", (*_core(), *_optional())),
        Section("places", tuple(_places(study))),
    ]
    code = 2 if any(finding.state == "bad" for section in sections for finding in section.findings) else 0
    if study is not None:
        findings, of_study = _study(study)
        name = study.name if study.suffix == ".toml" else f"{study.name}/{FILE_NAME}"
        sections.append(Section("study", findings, {"file": name}))
        code = code or of_study
    return Diagnosis(tuple(sections), code)


# -- the machine ----------------------------------------------------------------------------------------------------


def _version() -> Finding:
    params = {"version": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}
    return Finding("good", "version", params)


def _capacity() -> Finding:
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("good", "capacity", {"cores": os.cpu_count(), "memory": memory})


def _fonts() -> Finding:
    """Looked for as a file: importing matplotlib takes long and is for the figures only."""
    spec = importlib.util.find_spec("matplotlib")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    there = any((Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf").is_file() for folder in folders)
    return Finding("good", "fonts_good") if there else Finding("bad", "fonts_missing")


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _core() -> Iterator[Finding]:
    try:
        wanted = metadata.requires("evalkit-nl") or []
    except metadata.PackageNotFoundError:
        wanted = []
    for requirement in sorted(line for line in wanted if "extra ==" not in line):
        package = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if version := _installed(package):
            yield Finding("good", "package", {"package": package, "version": version})
        else:
            yield Finding("bad", "package_missing", {"package": package})


def _optional() -> Iterator[Finding]:
    for package in OPTIONAL:
        about = {"package": package, "purpose": package}
        if version := _installed(package):
            yield Finding("good", "package_present", {**about, "version": version})
        else:
            yield Finding("note", "package_optional", about)


def _places(study: Path | None) -> Iterator[Finding]:
    kernels = Path(os.environ.get("NUMBA_CACHE_DIR") or sys.prefix)
    places = {"temporary": Path(tempfile.gettempdir()), "kernels": kernels}
    if study is not None:
        places["results"] = study if study.is_dir() else study.parent
    for name, folder in places.items():
        good = _writable(folder)
        yield Finding("good" if good else "bad", "place_good" if good else "place_bad", {"place": name})


def _writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the nearest folder above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


# -- the study ------------------------------------------------------------------------------------------------------


def _study(path: Path) -> tuple[tuple[Finding, ...], int]:
    """What a study lacks, and the exit code."""
    try:
        study = read(path, all_settings())
    except StudyError as error:
        heading = Finding("bad", "study_faults", {"count": len(error.faults)})
        return (heading, *(Finding("bad", fault=fault) for fault in error.faults)), 2
    found = [finding for source in _sources(study) for finding in _source(study, *source)]
    lacking = sum(finding.state == "bad" for finding in found)
    if lacking:
        return (Finding("bad", "study_lacks", {"count": lacking}), *found), 3
    return (*found, Finding("good", "study_good")), 0


def _sources(study: Study) -> Iterator[tuple[str, Source, tuple[Field, ...]]]:
    """By table: where it comes from and the columns that the study uses."""
    if study.data is not None:
        for table, source in study.data.tables.items():
            yield table, source, fields(study, table)
    elif study.table is not None:
        spec = study.table
        names = [spec.unit, spec.treatment, *spec.periods]
        names += [*study.covariates.numeric, *study.covariates.categorical, *(g.name for g in study.subgroups)]
        yield "table", spec, tuple(Field(name, "text", name) for name in dict.fromkeys(names))


def _source(study: Study, table: str, source: Source, columns: tuple[Field, ...]) -> Iterator[Finding]:
    place = "table" if study.data is None else f"data.{table}"
    assert study.data is not None or study.table is not None
    layout = study.data.format if study.data is not None else study.table.format  # type: ignore[union-attr]
    try:
        raw = read_source(source, study.folder, layout, place)
    except DataError as error:
        yield from (Finding("bad", fault=fault) for fault in error.faults)
        return
    needed = wanted(columns)
    faults = check_columns(raw, needed, layout, f"{place}.columns")
    faults += settle(raw, columns, layout, f"{place.partition('.')[0]}.format")[2]
    yield from (Finding("bad", fault=fault) for fault in faults)
    used = sum(own in raw.header for own in needed.values())
    params = {"table": table, "file": raw.name, "columns": len(raw.header), "mapped": used}
    yield Finding("good", "table", {**params, "unused": len(raw.header) - used})
    yield from _filled(study, table)
    for column in columns:
        if column.codes is not None and column.own in raw.header:
            yield from _codes(table, column, raw)


def _filled(study: Study, table: str) -> Iterator[Finding]:
    """What a layout filled in for the table."""
    for filled in (filled for filled in study.filled if filled.table == table):
        about = {"table": table, "layout": filled.layout}
        yield Finding("good", "layout", {**about, "columns": ", ".join(filled.columns) or "–"})
        for item in filled.codes:
            key = "layout_codes_own" if item.own else "layout_codes"
            state: State = "note" if item.unverified else "good"
            yield Finding(state, key, {**about, **item.model_dump()})


def _codes(table: str, column: Field, raw: Raw) -> Iterator[Finding]:
    """How many codes the study does not name; never which."""
    assert column.codes is not None
    if "*" in column.codes:
        return
    filled = cell_texts(raw.table.column(f"c{raw.header.index(column.own)}"))
    unknown = filled.filter(pc.invert(pc.is_in(filled, value_set=pa.array(list(column.codes), pa.string()))))
    if len(unknown):
        params = {"table": table, "column": column.own, "codes": len(pc.unique(unknown)), "count": len(unknown)}
        yield Finding("note", "table_codes", params)
