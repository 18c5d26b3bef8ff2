"""Keys of two columns and keys whose zeros were lost, from every kind of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from layouts_example import CBS, LAYOUTS, cbs, jobs, tables, write_plain

from evalkit import register, study
from evalkit.errors import DataError
from evalkit.register.keys import compose
from evalkit.register.reader import plain_table
from evalkit.register.schema import Field

KINDS = [("csv", False), ("parquet", False), ("parquet", True), ("sav", True), ("dta", True), ("sav", False)]
"""Kinds of files, and whether they hold the key as a number."""


def codes(error: DataError) -> list[str]:
    return [fault.code for fault in error.faults]


SHORT = {"BIJSTANDAanvangUitkeringPersoon1A": "BIJSTANDAanvangUitkeringPersoon1"}
"""Stata cuts names off after 32 characters."""


def write_cbs(folder: Path, kind: str, number: bool) -> Path:
    for name, frame in cbs(number).items():
        if kind == "csv":
            frame.to_csv(folder / f"{name}.csv", index=False)
        elif kind == "parquet":
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        else:
            pyreadstat = pytest.importorskip("pyreadstat")
            frame = frame.rename(columns=SHORT if kind == "dta" else {}).fillna("")
            getattr(pyreadstat, {"sav": "write_sav", "dta": "write_dta"}[kind])(frame, folder / f"{name}.{kind}")
    text = CBS.replace("KIND", kind)
    if kind == "dta":
        text = text.replace(
            'columns.reason = "REDEN"', f'columns.reason = "REDEN"\ncolumns.start = "{next(iter(SHORT.values()))}"'
        )
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


@pytest.mark.parametrize(("kind", "number"), KINDS)
def test_keys_of_microdata_from_every_kind_of_file(kind, number, tmp_path, tmp_path_factory):
    read = register.read(study.read(write_cbs(tmp_path, kind, number)))
    made = tables()
    assert read.arrays("persons")["person"].tolist() == sorted(f"R|{key}" for key in made.persons["person"])
    plain = register.read(study.read(write_plain(tmp_path_factory.mktemp("plain"))))
    for name in ("benefits", "episodes"):
        one, other = read.arrays(name), plain.arrays(name)
        assert one["person"].tolist() == [f"R|{key}" for key in other["person"]]
        for column in ("start", "end", "reason", "type"):
            if column in other:
                np.testing.assert_array_equal(one[column], other[column])
    assert set(read.arrays("persons")["sex"]) == {"man", "woman"}
    work = read.arrays("jobs")
    assert work["hours"].sum() == jobs()["hours"].sum() and set(work["contract"]) == {"fixed_term"}
    restored = [check for check in read.findings if check.code == "key_zeros_restored"]
    assert [check.table for check in restored] == (["persons", "benefits", "episodes", "jobs"] if number else [])
    if number:
        short = sum(len(str(int(key))) < 9 for key in made.persons["person"])
        assert restored[0].count == short and dict(restored[0].params) == {"column": "RINPERSOON", "width": 9}
    assert "key_zeros_lost" not in {check.code for check in read.findings}


def test_numbers_and_text_agree_only_with_the_layout(tmp_path):
    path = write_cbs(tmp_path, "parquet", True)
    cbs(False)["gba"].to_parquet(tmp_path / "gba.parquet", index=False)
    assert len(register.read(study.read(path)).arrays("persons")["person"]) == 1200
    own = 'columns = { person = ["RINPERSOONS", "RINPERSOON"], sex = "GBAGESLACHT", birth_year = "GBAGEBOORTEJAAR" }'
    text = path.read_text().replace('file = "gba.parquet"\nlayout = "cbs"', f'file = "gba.parquet"\n{own}')
    path.write_text(text)
    assert len(register.read(study.read(path)).arrays("benefits")["person"]) > 1000  # text has its zeros already
    spells = """file = "bijstand.parquet"
columns.person = ["RINPERSOONS", "RINPERSOON"]
columns.start = "BIJSTANDAanvangUitkeringPersoon1A"
columns.end = "BIJSTANDEindeUitkeringPersoon1A"
"""
    path.write_text(text.replace('file = "bijstand.parquet"\nlayout = "cbs"\n', spells))
    with pytest.raises(DataError) as caught:
        register.read(study.read(path))
    assert codes(caught.value) == ["data.orphans"]


def test_a_missing_part_of_a_key(tmp_path):
    path = write_cbs(tmp_path, "csv", False)
    frame = cbs(False)["gba"].drop(columns="RINPERSOONS")
    frame.to_csv(tmp_path / "gba.csv", index=False)
    with pytest.raises(DataError) as caught:
        register.read(study.read(path))
    assert codes(caught.value) == ["data.missing_columns"]
    assert caught.value.faults[0].params["missing"] == "RINPERSOONS"


def keys(*rows: tuple[object, ...], widths: tuple[int, ...] = ()) -> list[str | None]:
    parts = tuple(f"k{i}" for i in range(len(rows[0])))
    raw = plain_table(
        {p: pa.chunked_array([pa.array([row[i] for row in rows])]) for i, p in enumerate(parts)}, name="f", sha256=""
    )
    field = Field("person", "key", " + ".join(parts), None, parts, widths or (0,) * len(parts))
    made, _ = compose("persons", raw, [field])
    assert made.header[0] == " + ".join(parts) and made.header[1:] == parts
    return made.table.column("c0").to_pylist()


def test_keys_are_joined_without_ambiguity():
    tricky = [("a", "b"), ("a|", "b"), ("a", "|b"), ("a|b", ""), ("", "a|b"), ("a\\", "|b"), ("a\\|", "b"), ("a", "b|")]
    made = keys(*tricky)
    assert made[3] is None and made[4] is None  # an empty part is no key
    assert len(set(made) - {None}) == 6
    assert keys((" R ", " 01\t"), ("R", "NULL"), ("R", None)) == ["R|01", None, None]
    assert keys(("R", 12.0), ("R", float("nan")), ("S", 7.0), widths=(0, 9)) == ["R|000000012", None, "S|000000007"]
    assert keys(("R", "x12"), ("R", "0000000012"), ("R", "12"), widths=(0, 4)) == ["R|x12", "R|0000000012", "R|0012"]
    assert keys((12,), (123456,), widths=(5,)) == ["00012", "123456"]


def test_zeros_lost_in_a_composed_key_without_the_layout():
    text = LAYOUTS.replace('columns = { person = "person", sex', 'columns = { person = ["a", "b"], sex')
    made = study.parse(text)
    persons = pd.DataFrame(
        {"person": ["R|000012", "R|12", "S|000013", "R|345", "r|0345"], "sex": "man", "birth_year": 1980}
    )
    benefits = persons[["person"]].assign(start=pd.Timestamp("2018-02-01"), end=pd.NaT, reason=None, scheme="ioaw")
    episodes = persons[["person"]].assign(type="other_workplace", start=pd.Timestamp("2018-03-01"), end=pd.NaT)
    found = {
        c.code: c.count
        for c in register.from_frames(made, persons=persons, benefits=benefits, episodes=episodes).findings
    }
    assert found["key_zeros_lost"] == 2  # R|12 and R|345
    assert found["key_alike"] == 4  # 12 twice and 345 twice; S|000013 is another
