"""The results document, its schema, its tables, and writing it whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import report_example
import results_example as example

from evalkit import results
from evalkit.errors import UsageError
from evalkit.exhibits import Finding
from evalkit.results import EFFECT_COLUMNS, SUMMARY_COLUMNS, Results, estimand_text, to_csv, write_files

VALIDATOR = jsonschema.Draft202012Validator(json.loads(example.SCHEMA.read_text("utf-8")))

FILES = {"effects.csv": b"new\n", "summary.csv": b"new\n", "results.json": b"new\n"}


def faults(document: Mapping[str, Any]) -> list[str]:
    return [f"{list(e.absolute_path)}: {e.message[:120]}" for e in VALIDATOR.iter_errors(document)]


# -- golden file and schema ------------------------------------------------------------------------------------------


def test_golden_file() -> None:
    """Anew with ``.venv/bin/python tests/results_example.py``."""
    golden = json.loads(example.GOLDEN.read_text("utf-8"))
    made = json.loads(json.dumps(example.assemble("municipal").document))
    for key in golden:
        assert made[key] == golden[key], key
    assert set(made) == set(golden)
    assert made["schema"] == results.SCHEMA == 1


def test_schema_is_itself_valid_and_closed() -> None:
    schema = json.loads(example.SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"] == {"const": results.SCHEMA}

    def closed(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("type") == "object" and "properties" in part and "protocol" not in str(part.get("description")):
                assert "additionalProperties" in part or "required" in part
            for value in part.values():
                closed(value)
        elif isinstance(part, list):
            for value in part:
                closed(value)

    closed(schema)


@pytest.mark.parametrize("disclosure", ["open", "municipal", "cbs", "strict"])
def test_documents_follow_the_schema(disclosure: str) -> None:
    assert faults(example.assemble(disclosure).document) == []


@pytest.mark.parametrize("name", [name for name in dir(report_example) if name.endswith("_document")])
def test_documents_of_the_report_tests_follow_the_schema(name: str) -> None:
    """What the report is tested on is what a run writes."""
    assert faults(getattr(report_example, name)()) == []


def spoil(document: dict[str, Any], how: str) -> None:
    profile = document["profiles"][0]
    match how:
        case "version":
            document["schema"] = 2
        case "extra":
            document["persons"] = []
        case "missing":
            del document["flow"]
        case "status":
            profile["months"][0]["status"] = "hidden"
        case "estimate without status":
            profile["months"][0]["estimate"] = None
        case "number under a status":
            profile["months"][0] |= {"status": "withheld"}
        case "measure":
            profile["summary"][0]["measure"] = "roi"
        case "role":
            document["exhibits"][0]["columns"][0]["role"] = "number"
        case "count":
            document["flow"][0]["persons"] = 1.5
        case "microdata":
            profile["influence"] = [[0.1]]


@pytest.mark.parametrize(
    "how",
    ["version", "extra", "missing", "status", "estimate without status", "number under a status", "measure", "role",
     "count", "microdata"],
)  # fmt: skip
def test_schema_refuses(how: str) -> None:
    document = json.loads(json.dumps(example.raw("open")))
    spoil(document, how)
    assert faults(document) != []


# -- the document ----------------------------------------------------------------------------------------------------


def test_no_microdata_no_paths_and_only_json_types() -> None:
    document = example.raw("open")
    text = json.dumps(document, allow_nan=False)
    assert 'influence"' not in text
    assert str(Path.cwd()) not in text
    assert document["study"]["name"] == "study.toml"

    def plain(value: Any) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None)), type(value)
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                plain(item)
        if isinstance(value, float):
            assert math.isfinite(value)

    plain(document)


def test_numbers_of_numpy_and_missing_ones_become_json() -> None:
    given = {
        "a": np.float64("nan"),
        "b": np.int64(3),
        "c": (np.inf, np.bool_(True)),
        "d": np.array([[1.5, np.nan]]),
        5: "x",
    }
    assert results._plain(given) == {"a": None, "b": 3, "c": [None, True], "d": [[1.5, None]], "5": "x"}


def test_created_follows_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert results._now() == "1970-01-01T00:00:00Z"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert results._now() > "2025-01-01T00:00:00Z"


def test_same_run_same_document() -> None:
    assert example.assemble("open").document == example.assemble("open").document


def test_the_first_run_that_showed_an_estimate_is_carried_along() -> None:
    first = dict(example.assemble("municipal").document)
    assert first["first_run"] is None
    failing = Finding("balance", "", "fail", 0.4, 0.25, {"variable": "age", "smd": 0.4})
    blind = dict(example.assemble("municipal", replace(example.analysis(), findings=(failing,))).document)
    assert example.assemble("municipal", earlier=blind).document["first_run"] is None
    first["created"] = "2025-01-01T00:00:00Z"
    second = example.assemble("municipal", earlier=first).document
    third = example.assemble("municipal", earlier=dict(second)).document
    assert third["first_run"] == second["first_run"]
    assert second["first_run"]["created"] == "2025-01-01T00:00:00Z"
    assert second["first_run"]["text"] == first["study"]["text"]
    assert faults(second) == []


def test_environment_names_versions_and_no_machine() -> None:
    made = results.environment()
    assert set(made) == {"python", "platform", "packages"}
    assert made["packages"]["numpy"] == np.__version__
    assert os.uname().nodename not in json.dumps(made).split()


# -- tables ----------------------------------------------------------------------------------------------------------


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_effect_table_has_the_columns_of_the_contract() -> None:
    assert ", ".join(EFFECT_COLUMNS) == (
        "analysis, method, instrument, comparison, outcome, subgroup, month, estimate, std_error, ci_low, ci_high, "
        "band_low, band_high, counterfactual, n_treated, n_comparison, estimand, unit, se_kind, composition, status"
    )
    record = example.assemble("municipal")
    rows = read(to_csv(record.effects(), EFFECT_COLUMNS))
    assert list(rows[0]) == list(EFFECT_COLUMNS)
    assert len(rows) == len(record.document["profiles"]) * example.MONTHS
    first = record.document["profiles"][0]["months"][4]
    assert float(rows[4]["estimate"]) == first["estimate"]
    assert rows[4]["estimand"] == "training vs wait | starters | from start | conditional_independence | caliper"
    hidden = [row for row in rows if row["subgroup"] == "sex=vrouw"]
    assert {(row["estimate"], row["n_treated"], row["status"]) for row in hidden} == {("", "", "suppressed")}


def test_summary_table_has_the_columns_of_the_contract_and_one_row_a_measure() -> None:
    assert ", ".join(SUMMARY_COLUMNS) == (
        "analysis, outcome, subgroup, measure, estimate, std_error, set_low, set_high, status"
    )
    rows = read(to_csv(example.assemble("open").summary(), SUMMARY_COLUMNS))
    assert list(rows[0]) == list(SUMMARY_COLUMNS)
    keys = [(row["analysis"], row["outcome"], row["subgroup"], row["measure"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {row["subgroup"] for row in rows} == {"", "sex=man", "sex=vrouw"}  # no contrasts
    assert all(row["std_error"] == "" for row in rows if row["measure"].startswith(("lock_in", "cross", "break")))


@pytest.mark.parametrize("variant", results.SECONDARY)
def test_summary_leaves_second_answers_out(variant: str) -> None:
    document = example.raw("open")
    document["profiles"] = document["profiles"][:1]
    document["profiles"][0]["labels"]["variant"] = variant
    assert Results(document).summary() == []
    assert len(Results(document).effects()) == example.MONTHS


def test_estimand_on_one_line_leaves_out_what_is_empty() -> None:
    estimand = example.raw("open")["profiles"][0]["estimand"] | {"restriction": ""}
    assert estimand_text(estimand, "exit_first").endswith("conditional_independence | exit_first")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_that_a_spreadsheet_would_run_is_quoted_off(start: str) -> None:
    (row,) = read(to_csv([{"a": f"{start}HYPERLINK(1)", "b": -0.5}], ["a", "b"]))
    assert (row["a"], row["b"]) == (f"'{start}HYPERLINK(1)".replace("\r", "\n"), "-0.5")


def test_csv_of_awkward_text_reads_back() -> None:
    rows = [{"a": 'x "y", z\nw\rv', "b": None}, {"a": "<30", "b": 0.1}]
    assert read(to_csv(rows, ["a", "b"])) == [{"a": 'x "y", z\nw\nv', "b": ""}, {"a": "<30", "b": "0.1"}]


# -- writing ---------------------------------------------------------------------------------------------------------


def old(folder: Path) -> None:
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("old\n")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', "no json"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        Results.read(path)
    assert error.value.faults[0].code == "results.unreadable"


def test_write_and_read_back(tmp_path: Path) -> None:
    record = example.assemble("municipal")
    paths = record.write(tmp_path / "new" / "results")
    assert [path.name for path in paths] == ["effects.csv", "summary.csv", "results.json"]  # the document last
    assert Results.read(paths[-1]).document == json.loads(json.dumps(record.document))
    assert {path.name for path in (tmp_path / "new" / "results").iterdir()} == {path.name for path in paths}
    assert paths[0].read_bytes().count(b"\r") == 0


def test_a_document_with_nan_is_never_written(tmp_path: Path) -> None:
    document = example.raw("open")
    document["profiles"][0]["months"][0]["estimate"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        Results(document).write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_failure_while_writing_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the second file: nothing has been put into place yet."""
    folder = tmp_path / "out"
    old(folder)
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError("no space left on device")

    monkeypatch.setattr(results.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_files(folder, FILES)
    assert contents(folder) == dict.fromkeys(FILES, "old\n")


def test_failure_while_moving_leaves_only_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files move one by one: each is then old or new as a whole, and the document, which goes last, is still old."""
    folder = tmp_path / "out"
    old(folder)
    move = os.replace

    def stuck(source: Path, target: Path) -> None:
        if target.name == "summary.csv":
            raise OSError("busy")
        move(source, target)

    monkeypatch.setattr(results.os, "replace", stuck)
    with pytest.raises(OSError, match="busy"):
        write_files(folder, FILES)
    assert contents(folder) == {"effects.csv": "new\n", "summary.csv": "old\n", "results.json": "old\n"}


def test_files_in_a_folder_of_their_own(tmp_path: Path) -> None:
    (path,) = write_files(tmp_path, {"figures/one.png": b"\x00"})
    assert path == tmp_path / "figures" / "one.png"
    assert path.read_bytes() == b"\x00"
    assert [p.name for p in tmp_path.iterdir()] == ["figures"]
