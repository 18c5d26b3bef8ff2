"""Drawn tables: fixed schema, what must hold in every register, determinism; and the files they are written to."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evalkit.simulate import DEMO, SMALL, Municipality, Tables, draw, truth, write

FIRST, LAST = pd.Timestamp(2015, 1, 1), pd.Timestamp(2023, 12, 31)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return draw(DEMO, 8_000, seed=1)


def test_schema(tables: Tables) -> None:
    assert list(tables.persons) == ["person", "sex", "birth_year", "education", "household", "distance"]
    assert list(tables.benefits) == ["person", "start", "end", "reason"]
    assert list(tables.episodes) == ["person", "type", "start", "end", "planned_end", "referral"]
    assert len(tables.persons) == 8_000 and tables.persons["person"].is_unique
    assert tables.persons["person"].is_monotonic_increasing
    assert set(tables.persons["person"]) == set(tables.benefits["person"])
    assert set(tables.episodes["person"]) <= set(tables.persons["person"])
    for frame, name in ((tables.benefits, "start"), (tables.benefits, "end"), (tables.episodes, "planned_end")):
        assert frame[name].dtype == "datetime64[ns]"
    assert tables.persons["distance"].dtype == float and tables.persons["birth_year"].dtype == np.int64
    assert set(tables.benefits["reason"].dropna()) == {"work", "education", "other"}
    assert set(tables.episodes["type"]) == {"training", "coaching"}


def test_spells_hold_together(tables: Tables) -> None:
    spells = tables.benefits
    assert (spells["end"].isna() == spells["reason"].isna()).all()
    ended = spells.dropna(subset="end")
    assert (ended["end"] >= ended["start"]).all() and ended["end"].max() <= LAST and spells["start"].max() <= LAST
    same = spells["person"].to_numpy()[1:] == spells["person"].to_numpy()[:-1]
    gap = (spells["start"].to_numpy()[1:] - spells["end"].to_numpy()[:-1])[same]
    assert same.any() and not np.isnat(gap).any() and gap.min() >= np.timedelta64(2, "D")
    stock = spells["start"] < FIRST
    assert 0.05 < stock.mean() < 0.2
    assert not (spells.loc[stock, "end"] < FIRST).any()


def test_episodes_lie_in_the_first_spell(tables: Tables) -> None:
    first = tables.benefits.groupby("person").first().reset_index()
    both = tables.episodes.merge(first, on="person", suffixes=("", "_spell"))
    assert ((both["start"] >= both["start_spell"]) & ~(both["start"] > both["end_spell"])).all()
    assert ((both["referral"] >= both["start_spell"]) & (both["referral"] <= both["start"])).all()
    assert ((both["end"] <= both["planned_end"]) | both["end"].isna()).all()
    assert not (both["end"] > both["end_spell"]).any() and both["end"].max() <= LAST
    training = both[both["type"] == "training"]
    months = (training["planned_end"] - training["start"]).dt.days
    assert months.between(180, 184).all()
    assert not tables.episodes.duplicated(["person", "type"]).any()


def test_same_seed_same_tables_other_seed_other_tables(tables: Tables) -> None:
    again = draw(DEMO, 8_000, seed=1)
    for name in ("persons", "benefits", "episodes"):
        pd.testing.assert_frame_equal(getattr(tables, name), getattr(again, name))
    assert not tables.benefits.equals(draw(DEMO, 8_000, seed=2).benefits)


def test_ids_carry_no_information(tables: Tables) -> None:
    first = tables.benefits.groupby("person")["start"].first().reset_index(drop=True)
    assert abs(np.corrcoef(np.arange(len(first)), first.astype("int64"))[0, 1]) < 0.045


def test_entry_days_and_options() -> None:
    plain = draw(replace(Municipality(), coaching_rate=0.0), 2_000, seed=1)
    first = plain.benefits.groupby("person")["start"].first()
    assert (first.dt.day == 1).all() and first.min() >= FIRST
    assert set(plain.episodes["type"]) == {"training"}
    no_return = draw(replace(SMALL, return_rates=(0.0, 0.0, 0.0)), 2_000, seed=1)
    assert len(no_return.benefits) == 2_000
    nobody = draw(replace(SMALL, start_rate=0.0, coaching_rate=0.0), 500, seed=1)
    assert not len(nobody.episodes) and list(nobody.episodes) == list(plain.episodes)
    any_day = draw(DEMO, 3_000, seed=1).benefits.groupby("person")["start"].first().dt.day
    assert set(any_day) == set(range(1, 29))


def test_starters_are_selected(tables: Tables) -> None:
    trained = tables.persons["person"].isin(tables.episodes.query("type == 'training'")["person"])
    distance = tables.persons.groupby(trained)["distance"].mean()
    assert distance[True] > distance[False] + 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": (dt.date(2015, 1, 2), dt.date(2023, 12, 31))},
        {"window": (dt.date(2015, 1, 1), dt.date(2023, 12, 30))},
        {"programme_months": 0},
        {"stock_months": -1},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="municipality"):
        Municipality(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="draw"):
        draw(SMALL, 0, seed=1)


def test_dutch_files(tables: Tables, tmp_path: Path) -> None:
    effects = truth(SMALL, 6)
    paths = write(tmp_path, tables, truth={"wait": effects}, study_text="schema = 1\n")
    names = ["personen.csv", "uitkeringen.csv", "trajecten.csv", "truth.json", "study.toml"]
    assert [path.name for path in paths] == names
    raw = paths[0].read_bytes()
    assert raw.startswith(b"pseudoniem;geslacht;geboortejaar;opleiding;huishouden;afstand\r\n")
    assert raw.count(b"\r\n") == raw.count(b"\n") == len(tables.persons) + 1
    options = {"sep": ";", "decimal": ",", "encoding": "cp1252"}
    persons = pd.read_csv(paths[0], **options)  # type: ignore[call-overload]
    assert list(persons["pseudoniem"]) != list(tables.persons["person"])
    back = persons.sort_values("pseudoniem").reset_index(drop=True)
    assert back["afstand"].equals(tables.persons["distance"])
    assert set(back["geslacht"]) == {"man", "vrouw"} and set(back["opleiding"]) == {"laag", "midden", "hoog"}
    spells = pd.read_csv(paths[1], **options)  # type: ignore[call-overload]
    for own in ("ingang", "laatste_dag"):
        spells[own] = pd.to_datetime(spells[own], format="%d-%m-%Y")
    spells = spells.sort_values(["pseudoniem", "ingang"]).reset_index(drop=True)
    assert spells["ingang"].equals(tables.benefits["start"].rename("ingang"))
    assert spells["laatste_dag"].equals(tables.benefits["end"].rename("laatste_dag"))
    fixed = spells["reden"].map({"werk": "work", "opleiding": "education", "verhuizing": "other", "overig": "other"})
    assert fixed.where(fixed.notna(), None).equals(tables.benefits["reason"].rename("reden"))
    moved = spells["reden"] == "verhuizing"
    assert moved.any() and not (moved & spells["pseudoniem"].duplicated(keep="last")).any()
    episodes = pd.read_csv(paths[2], **options)  # type: ignore[call-overload]
    assert len(episodes) == len(tables.episodes) and set(episodes["soort"]) == {"scholing", "coaching"}
    document = json.loads(paths[3].read_text())
    assert document["wait"]["left_to_work"]["effect"] == effects["left_to_work"].effect.tolist()
    assert paths[4].read_text() == "schema = 1\n"


def test_english_files_and_determinism(tables: Tables, tmp_path: Path) -> None:
    one, two = write(tmp_path / "a", tables, lang="en"), write(tmp_path / "b", tables, lang="en")
    assert [path.name for path in one] == ["persons.csv", "benefits.csv", "episodes.csv"]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    spells = pd.read_csv(one[1], parse_dates=["start", "end"]).sort_values(["person", "start"]).reset_index(drop=True)
    assert spells["end"].equals(tables.benefits["end"])
    assert set(spells["reason"].dropna()) == {"work", "education", "moved", "other"}
