"""A person's value appears nowhere: not in a message, a log, an exception, a result, nor in a file left behind."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from marked import DAY, KINDS, LEAK, MARKER, NUMBER, as_csv, plant, short, study_in, town
from register_example import bsn

from evalkit import cli, kernels, register
from evalkit.errors import EvalkitError
from evalkit.study import read

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """The command line as it is started; what it prints and every file it leaves is searched for what was planted."""
    aside = tmp_path / "tmp"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    monkeypatch.delenv("EVALKIT_DEBUG", raising=False)
    began = time.time()

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evalkit", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
            clean("".join(traceback.format_exception(end, chain=False)))
        shown = "".join(capfd.readouterr())
        clean(shown)
        return code, shown

    yield run
    compiled = os.environ.get("NUMBA_CACHE_DIR") or Path(kernels.__file__).parent
    left = [*tmp_path.rglob("*"), *Path(compiled).rglob("*"), *Path.cwd().glob("*"), *Path.home().glob("*")]
    for path in (path for path in left if path.is_file() and "data" not in path.parts):
        if path.stat().st_mtime >= began - 1:
            clean(path.read_bytes().decode("latin-1"), path.name)
    assert [path.name for path in aside.rglob("*") if path.is_file()] == []


def clean(text: str, where: str = "") -> None:
    """Nothing planted is in a text."""
    found = LEAK.search(text)
    assert found is None, f"{where}: …{text[max(0, found.start() - 200) : found.end() + 50]}…"


# -- what goes well ----------------------------------------------------------------------------------------------------


def test_the_markers_are_there(tmp_path):
    folder = study_in(tmp_path / "study")
    for path in (folder / "data").iterdir():
        assert LEAK.search(path.read_text("utf-8"))
    made = register.read(read(folder / "study.toml"))
    codes = {check.code for check in made.findings}
    assert codes >= {"orphan", "date_unreadable", "ragged_record", "code_unknown", "number_unreadable", "date_missing"}
    assert codes >= {"person_duplicate", "spell_duplicate", "category_rare", "outside_window", "numeric_outlier"}


def test_check_of_csv(tmp_path, call):
    folder = study_in(tmp_path / "study")
    assert call("check", folder, "--lang", "nl")[0] == 0
    assert call("check", folder, "--json", "--lang", "en")[0] == 0


@pytest.mark.slow
def test_run_of_csv(tmp_path, call):
    folder = study_in(tmp_path / "study")
    code, shown = call("run", folder, "--lang", "nl")
    assert code == 0 and "procentpunt" in shown
    assert "zeldzame waarde 1" in (folder / "results" / "report.nl.html").read_text("utf-8")
    assert call("report", folder / "results")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "csv"])
def test_check_and_run_of_every_kind(tmp_path, call, kind):
    folder = study_in(tmp_path / "study", kind)
    assert call("check", folder, "--lang", "nl")[0] == 0
    assert call("run", folder, "--json")[0] == 0


def slow_kinds(*quick: str) -> list[Any]:
    """All kinds of files, those that take long to write marked."""
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", slow_kinds("csv", "parquet", "duckdb"))
def test_doctor_and_map(tmp_path, call, kind):
    folder = study_in(tmp_path / "study", kind, short())
    assert call("doctor", folder, "--lang", "nl")[0] == 0
    assert call("doctor", folder, "--json")[0] == 0
    files = sorted((folder / "data").iterdir())
    code, shown = call("map", *files, "--lang", "nl")
    assert code == 0 and "[data.benefits]" in shown and '"training"' in shown
    assert call("map", *files, "--into", folder)[0] == 0


def test_check_of_a_ready_table(tmp_path, call):
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"nr": [f"{MARKER}-{i}" for i in range(200)], "groep": rng.integers(0, 2, 200)}, dtype=object)
    table["leeftijd"], table["opleiding"] = rng.integers(20, 60, 200), rng.choice(["mbo", "hbo"], 200)
    table["y1"], table["naam"] = rng.integers(0, 2000, 200), MARKER
    table = table.astype(object)
    table.loc[:2, ["opleiding", "leeftijd", "y1"]] = [MARKER, NUMBER, NUMBER]
    folder = tmp_path / "study"
    folder.mkdir()
    text = """
        schema = 1
        seed = 1
        languages = ["nl"]
        title = { nl = "Proef" }
        [table]
        file = "data.csv"
        unit = "nr"
        treatment = "groep"
        outcomes = { earnings = ["y1"] }
        [time]
        horizon = 1
        [treatment]
        instrument = "training"
        design = "randomised"
        [[outcome]]
        name = "earnings"
        kind = "flow"
        primary = true
        [covariates]
        numeric = ["leeftijd"]
        categorical = ["opleiding"]
        [[analysis]]
        id = "main"
        method = "experiment"
    """
    (folder / "study.toml").write_text(text, "utf-8")
    (folder / "data").mkdir()
    (folder / "study.toml").write_text(text.replace("data.csv", "data/data.csv"), "utf-8")
    table.to_csv(folder / "data" / "data.csv", sep=";", index=False)
    assert call("run", folder)[0] == 0
    for column, value in {"y1": MARKER, "leeftijd": MARKER, "groep": MARKER, "nr": f"{MARKER}-5"}.items():
        spoilt = table.copy()
        spoilt.loc[7, column] = value
        spoilt.to_csv(folder / "data" / "data.csv", sep=";", index=False)
        assert call("check", folder)[0] == 3


@pytest.mark.slow
def test_a_synthetic_twin(tmp_path, call):
    frames = town()
    people = frames["personen"]
    people["afstand"] = people["afstand"].replace(NUMBER, "5,0")  # so many have it that it may be told
    plant(people, "afstand", NUMBER, 3)
    folder, twin = study_in(tmp_path / "study", frames=frames), tmp_path / "twin"
    assert call("simulate", twin, "--like", folder / "study.toml", "--persons", "600")[0] == 0
    files = [path for path in twin.rglob("*") if path.is_file()]
    assert any("data" in path.parts for path in files)
    for path in files:
        clean(path.read_bytes().decode("latin-1"), path.name)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def cells(table: str, column: str, value: str) -> Callable[[Path], None]:
    """All cells of a column are something else."""

    def change(data: Path) -> None:
        frames = short()
        frames[table][column] = value
        as_csv(data, frames)

    return change


def text(table: str, change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Path], None]:
    def spoil(data: Path) -> None:
        path = data / f"{table}.csv"
        path.write_bytes(change(path.read_text("utf-8")).encode(encoding))

    return spoil


def conflict(data: Path) -> None:
    frames = short()
    frames["personen"].loc[len(frames["personen"])] = [*frames["personen"].iloc[0, :1], "v", *[MARKER] * 6]
    as_csv(data, frames)


def numbers(data: Path) -> None:
    frames = short()
    frames["personen"]["naam"] = (bsn(50) * 60)[: len(frames["personen"])]
    as_csv(data, frames)


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "unreadable numbers": ("data.numbers", cells("personen", "afstand", f"{MARKER} {NUMBER}")),
    "unreadable dates": ("data.dates", cells("uitkeringen", "ingang", MARKER)),
    "unknown codes": ("data.codes", cells("trajecten", "soort", MARKER)),
    "orphans": ("data.orphans", cells("uitkeringen", "sleutel", f"{MARKER}-x")),
    "nobody": ("data.no_rows", cells("uitkeringen", "laatste_dag", DAY)),
    "contradicting persons": ("data.conflicting_persons", conflict),
    "citizen numbers": ("data.bsn", numbers),
    "no header": ("data.header", text("personen", lambda text: text.split("\n", 1)[1])),
    "no header of benefits": ("data.header", text("uitkeringen", lambda text: text.split("\n", 1)[1])),
    "ragged": ("data.ragged", text("personen", lambda text: text.replace("\n", f"\n{MARKER};"))),
    "open quote": ("data.ragged", text("trajecten", lambda text: text.replace("\n", f'\n"{MARKER}', 1))),
    "wrong delimiter": ("data.one_column", text("banen", lambda text: text.replace(";", "|"))),
    "column twice": ("data.double_column", text("personen", lambda text: text.replace("wijk", "sekse", 1))),
    "utf-16 without a mark": ("data.missing_columns", text("personen", str, "utf-16-be")),
    "not utf-8": ("data.encoding", text("personen", lambda text: text.replace("wijk 1", "wÿk"), "cp1252")),
    "empty": ("data.empty_file", text("banen", lambda text: "")),
    "only a person": ("data.empty_file", text("banen", lambda text: f"{MARKER};{DAY};;{NUMBER};1")),
    "missing columns": ("data.missing_columns", text("banen", lambda text: text.replace("uren", "x", 1))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path, call, fault):
    expected, spoil = FAULTS[fault]
    folder = study_in(tmp_path / "study", frames=short())
    spoil(folder / "data")
    code, shown = call("run", folder, "--json", "--lang", "nl")
    assert code == 3 and expected in shown
    assert not (folder / "results").exists()
    call("doctor", folder)
    if fault != "unknown codes":  # which so many persons have there that they may be shown
        call("map", *sorted((folder / "data").iterdir()), "--into", folder)
    with pytest.raises(EvalkitError) as error:
        register.read(read(folder / "study.toml"))
    silent(error.value)


def silent(error: BaseException) -> None:
    """Nothing planted in an error, in what it was raised from, nor in how Python prints it."""
    clean("".join(traceback.format_exception(error)))
    chain: BaseException | None = error
    while chain is not None:
        clean(repr(chain) + str(chain.args) + str(vars(chain)))
        if isinstance(chain, EvalkitError):
            clean("".join(chain.text(lang) + str([dict(f.params) for f in chain.faults]) for lang in ("nl", "en")))
        chain = chain.__cause__ or chain.__context__


@pytest.mark.parametrize("kind", slow_kinds("parquet", "spss", "stata"))
def test_damaged_files(tmp_path, call, kind):
    folder = study_in(tmp_path / "study", kind, short())
    path = next((folder / "data").glob("personen.*"))
    data = path.read_bytes()
    for spoilt in (data[: len(data) // 2], MARKER.encode() * 99, data[:100] + MARKER.encode() * 20 + data[300:]):
        path.write_bytes(spoilt)
        code, _ = call("check", folder)
        assert code in (3, 0)
        call("map", path)
        with contextlib.suppress(EvalkitError):
            try:
                register.read(read(folder / "study.toml"))
            except EvalkitError as error:
                silent(error)
                raise


def test_a_view_that_fails_on_a_value(tmp_path, call):
    """The database's own words quote the value."""
    folder = study_in(tmp_path / "study", "duckdb", short())
    path = folder / "data" / "personen.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE kept RENAME TO hidden")
        connection.execute("CREATE VIEW kept AS SELECT * REPLACE (CAST(sleutel AS INTEGER) AS sleutel) FROM hidden")
        with pytest.raises(duckdb.Error, match=MARKER):
            connection.execute("SELECT * FROM kept").fetchall()
    assert call("check", folder)[0] == 3
    with pytest.raises(EvalkitError) as error:
        register.read(read(folder / "study.toml"))
    silent(error.value)


@pytest.mark.slow
def test_the_design_fails(tmp_path, call):
    """Faults of the design name columns and categories; not those that few people have."""
    frames = town()
    people = frames["personen"]
    started = people["sleutel"].isin(frames["trajecten"].loc[frames["trajecten"]["soort"] == "training", "sleutel"])
    people["niveau"] = np.where(started, "midden", MARKER + people["sleutel"].str[-3:])
    folder = study_in(tmp_path / "study", frames=frames)
    assert call("check", folder)[0] == 4


ERRORS: dict[str, Exception] = {
    "value": ValueError(f"could not convert string to float: '{MARKER}'"),
    "key": KeyError(MARKER),
    "unicode": UnicodeDecodeError("utf-8", MARKER.encode(), 0, 1, MARKER),
    "database": duckdb.ConversionException(f"Could not convert string '{MARKER}' to INT32"),
    "arrow": pa.ArrowInvalid(f"In CSV column #1: {MARKER}"),
    "memory": MemoryError(DAY),
    "file": OSError(28, f"No space left for {NUMBER}"),
}
EARLY = (
    "evalkit.register.tables._build",
    "evalkit.register.reader.pa_csv.read_csv",
    "evalkit.register.engine.Engine.type_table",
    "evalkit.register.engine.Engine.arrays",
    "evalkit.run.from_register",
)
LATE = (
    "evalkit.register.checks.survey.Survey.checks",
    "evalkit.run.judge_sample",
    "evalkit.results.assemble",
    "evalkit.report.write",
    "evalkit.results.write_files",
)


@pytest.mark.parametrize("place", EARLY)
def test_errors_from_within(tmp_path, call, monkeypatch, place):
    folder = study_in(tmp_path / "study", frames=short())
    for error in list(ERRORS.values())[: None if place == EARLY[0] else 2]:
        fails(place, error, folder, call, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("place", LATE)
def test_errors_at_the_end(tmp_path, call, monkeypatch, place):
    fails(place, ERRORS["value"], study_in(tmp_path / "study"), call, monkeypatch)


def fails(place: str, error: Exception, folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in which something raises an error that quotes a value."""

    def fail(*args: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    code, shown = call("run", folder)
    assert code in (1, 3)
    assert code == 3 or type(error).__name__ in shown


def test_a_warning_of_a_library(tmp_path, call, monkeypatch):
    import warnings

    from evalkit.register.checks.survey import Survey

    folder = study_in(tmp_path / "study")
    checks = Survey.checks

    def warn(self: Survey) -> Any:
        warnings.warn(f"Parsing {DAY} of {MARKER}", stacklevel=1)
        return checks(self)

    monkeypatch.setattr(Survey, "checks", warn)
    with warnings.catch_warnings():
        assert call("check", folder)[0] == 0


def test_pseudonymise(tmp_path, call):
    """The copy is the user's own; nothing of it is told."""
    people = town()["personen"]
    people["bsn"] = (bsn(60) * 60)[: len(people)]
    data = tmp_path / "data"
    data.mkdir()
    people.to_csv(data / "in.csv", sep=";", index=False)
    key, out = tmp_path / "key", data / "out.csv"
    assert call("pseudonymise", data / "in.csv", "--column", "bsn", "--key", key, "--out", out)[0] == 0
    assert MARKER in out.read_text("utf-8")
    for column in ("naam", "sleutel", "wijk"):
        code, _ = call("pseudonymise", data / "in.csv", "--column", column, "--key", key, "--out", data / "no.csv")
        assert code == 3 and not (data / "no.csv").exists()


def test_frames_of_a_notebook():
    """Errors of the Python road chain nothing that quotes a value."""
    from evalkit.matching.frame import match_frame

    table = pd.DataFrame({"d": [0, 1] * 10, "x": [MARKER] * 20, "y": range(20)})
    for columns in ({"numeric": ["x"]}, {"numeric": ["z"]}):
        with pytest.raises(EvalkitError) as error:
            match_frame(table, treatment="d", **columns)
        silent(error.value)
