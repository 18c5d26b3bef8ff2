"""What evalkit doctor says, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from register_example import BENEFITS, EPISODES, MARKER, TABLE, TABLE_STUDY, bsn, write, write_table
from typer.testing import CliRunner

from evalkit import doctor
from evalkit.cli import app
from evalkit.study import template
from evalkit.text import LANGUAGES


def keys(diagnosis: doctor.Diagnosis, section: str = "study") -> list[str]:
    found = next(part for part in diagnosis.sections if part.key == section)
    return [finding.fault.code if finding.fault else finding.key for finding in found.findings]


def study(folder: Path, **spoilt: str) -> Path:
    made = write(folder, **spoilt)
    (folder / "study.toml").write_text(made.text, "utf-8")
    return folder


def test_the_machine() -> None:
    diagnosis = doctor.examine()
    assert [section.key for section in diagnosis.sections] == ["machine", "packages", "places"]
    assert diagnosis.exit_code == 0
    text = diagnosis.text("nl")
    for word in ("duckdb 2", "Python 3", "DejaVu Sans", "pyreadstat", "schrijven kan"):
        assert word in text, word


def test_a_package_that_some_sources_need(monkeypatch: pytest.MonkeyPatch) -> None:
    have = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: "" if name == "openpyxl" else have(name))
    diagnosis = doctor.examine()
    assert diagnosis.exit_code == 0
    assert "openpyxl is niet geïnstalleerd; nodig voor Excelbestanden" in diagnosis.text("nl")
    monkeypatch.setattr(doctor, "_installed", lambda name: "" if name == "duckdb" else have(name))
    assert doctor.examine().exit_code == 2 and "duckdb is missing" in doctor.examine().text("en")


def test_a_place_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    diagnosis = doctor.examine()
    assert diagnosis.exit_code == 2 and "place_bad" in keys(diagnosis, "places")


def test_a_study_that_lacks_nothing(tmp_path: Path) -> None:
    diagnosis = doctor.examine(study(tmp_path))
    assert diagnosis.exit_code == 0 and keys(diagnosis)[-1] == "study_good"
    assert doctor.examine(tmp_path / "study.toml").exit_code == 0


def test_a_new_study_lacks_its_files(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(template("nl"), "utf-8")
    diagnosis = doctor.examine(tmp_path)
    assert diagnosis.exit_code == 3
    assert keys(diagnosis) == ["study_lacks", *["data.missing_file"] * 3]


def test_columns_and_codes_that_are_not_mapped(tmp_path: Path) -> None:
    benefits = BENEFITS.replace("uitstroom", "reden").replace("ingang", "begin")
    episodes = EPISODES.replace("S1", MARKER).replace("S2", "Z9")
    diagnosis = doctor.examine(study(tmp_path, benefits=benefits, episodes=episodes))
    assert diagnosis.exit_code == 3
    assert keys(diagnosis) == ["study_lacks", "table", "data.missing_columns", "table", "table", "table_codes"]
    text = diagnosis.text("en")
    assert "2 different codes in 2 rows" in text and "begin" in text and MARKER not in text
    codes_only = doctor.examine(study(tmp_path, episodes=episodes))
    assert codes_only.exit_code == 0 and "table_codes" in keys(codes_only)


def test_a_faulty_study_file(tmp_path: Path) -> None:
    study(tmp_path)
    file = tmp_path / "study.toml"
    file.write_text(file.read_text("utf-8").replace("horizon = 24", "horizn = 24"), "utf-8")
    diagnosis = doctor.examine(file)
    assert diagnosis.exit_code == 2 and "study.unknown_key" in keys(diagnosis)
    assert doctor.examine(tmp_path / "nowhere").exit_code == 2


def test_numbers_and_missing_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = bsn(20)
    persons = "pseudoniem;sekse;gebjaar;inkomen\n" + "".join(f"{number};m;1980;1\n" for number in numbers)
    diagnosis = doctor.examine(study(tmp_path, persons=persons))
    assert diagnosis.exit_code == 3 and "data.bsn" in keys(diagnosis)
    assert not any(number.lstrip("0") in diagnosis.text("en") for number in numbers)
    monkeypatch.delenv("TOWN", raising=False)
    file = tmp_path / "study.toml"
    file.write_text(file.read_text("utf-8").replace('file = "personen.csv"', 'database = "TOWN"\ntable = "p"'), "utf-8")
    pytest.importorskip("psycopg")
    assert "data.database_variable" in keys(doctor.examine(file))


def test_a_ready_table(tmp_path: Path) -> None:
    write_table(tmp_path)
    (tmp_path / "study.toml").write_text(TABLE_STUDY, "utf-8")
    assert doctor.examine(tmp_path).exit_code == 0
    write_table(tmp_path, TABLE.replace("groep", "arm"))
    assert keys(doctor.examine(tmp_path)) == ["study_lacks", "data.missing_columns", "table"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_command(tmp_path: Path, lang: str) -> None:
    done = CliRunner().invoke(app, ["doctor", str(study(tmp_path)), "--lang", lang])
    assert done.exit_code == 0 and "duckdb" in done.stdout
    (tmp_path / "data" / "personen.csv").unlink()
    done = CliRunner().invoke(app, ["doctor", str(tmp_path), "--json", "--lang", lang])
    assert done.exit_code == 3
    document = json.loads(done.stdout)
    assert document["exit_code"] == 3 and document["sections"][-1]["findings"][0]["code"] == "study_lacks"
