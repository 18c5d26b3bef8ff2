"""Tables of what changes in the register: read from files, typed, sifted, checked, refused; nothing private is said."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from changing_example import changes, figures, frames, protocol, town
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from register_example import bsn

from evalkit import doctor, mapping, register, sample, study
from evalkit.errors import DataError, EvalkitError
from evalkit.register.checks.changing import CHANGING_RULES
from evalkit.report.view import View
from evalkit.text import LANGUAGES

MARKER = "ZZMARKER7"
D = dt.date


def clean(persons: int = 30) -> dict[str, Any]:
    """Rows to which no rule on what changes objects."""
    rows = town(3, persons)
    people = [p[0] for p in rows["persons"]]
    rows["persons"] = [(*p[:3], "ABC"[i % 3]) for i, p in enumerate(rows["persons"])]
    rows["household"] = [
        (p, D(2017, 1, 2), None, D(2017, 1, 5), ("single", "couple")[i % 2]) for i, p in enumerate(people)
    ]
    rows["debt"] = [(p, D(2017, 1, 2), None, None, float(i)) for i, p in enumerate(people)]
    rows["place"] = [(p, D(2017, 1, 2), None, None, "ABC"[i % 3]) for i, p in enumerate(people)]
    months = [D(2017 + i // 12, i % 12 + 1, 1) for i in range(60)]
    rows["unemployment"] = [(a, m, 4.0 + i % 5) for a in "ABC" for i, m in enumerate(months)]
    return rows


def read(rows: dict[str, Any], made: study.Study | None = None, **tables: pd.DataFrame) -> register.Register:
    made = made or protocol()
    given = frames(rows, "registered" in made.data.changes["household"].columns)
    for name, frame in tables.items():
        given["areas" if name in given["areas"] else "changes"][name] = frame
    return register.from_frames(made, **given)


def about(tables: register.Register, *prefixes: str) -> list[tuple[str, str, int]]:
    prefixes = prefixes or ("changes.", "areas.")
    return [(c.code, c.table, c.count) for c in tables.findings if c.table.startswith(prefixes)]


def test_no_rule_objects_to_clean_rows():
    assert about(read(clean())) == []
    assert sample.from_register(protocol(), read(clean())).changing.covariates.keys() == {
        "household", "debt", "place", "unemployment",
    }  # fmt: skip


def with_rows(table: str, *more: tuple) -> dict[str, Any]:
    rows = clean()
    return rows | {table: [*rows[table], *more]}


P, H, U = "p000", "changes.household", "areas.unemployment"
LATER = D(2018, 5, 3)
SPOILT: dict[str, tuple[dict[str, Any], str, int, dict[str, Any]]] = {  # rows, table, count, and rows just inside
    "person_missing": (with_rows("household", (None, LATER, None, LATER, "single")), H, 1, clean()),
    "start_missing": (with_rows("household", (P, None, None, LATER, "single")), H, 1, clean()),
    "registered_missing": (with_rows("household", (P, LATER, None, None, "single")), H, 1, clean()),
    "end_before_start": (
        with_rows("household", (P, LATER, D(2018, 5, 2), LATER, "single")),
        H,
        1,
        with_rows("household", (P, LATER, LATER, LATER, "single")),
    ),
    "orphan": (with_rows("household", ("nobody", LATER, None, LATER, "single")), H, 1, clean()),
    "row_duplicate": (
        with_rows("household", *[(P, LATER, None, LATER, "single")] * 3),
        H,
        2,
        with_rows("household", (P, LATER, None, LATER, "single")),
    ),
    "change_conflict": (
        with_rows("household", (P, LATER, None, LATER, "single"), (P, LATER, None, LATER, "couple")),
        H,
        2,
        with_rows("household", (P, LATER, None, LATER, "single"), (P, LATER, None, D(2018, 5, 4), "couple")),
    ),
    "change_overlap": (
        with_rows("household", (P, LATER, D(2018, 6, 1), LATER, "single"), (P, D(2018, 6, 1), None, LATER, "couple")),
        H,
        1,
        with_rows("household", (P, LATER, D(2018, 6, 1), LATER, "single"), (P, D(2018, 6, 2), None, LATER, "couple")),
    ),
    "change_after_window": (
        with_rows("household", (P, D(2022, 1, 1), None, D(2022, 1, 1), "single")),
        H,
        1,
        with_rows("household", (P, D(2021, 12, 31), None, D(2021, 12, 31), "single")),
    ),
    "change_registered_late": (
        with_rows("household", (P, LATER, None, D(2018, 6, 3), "single")),
        H,
        1,
        with_rows("household", (P, LATER, None, D(2018, 6, 2), "single")),
    ),
    "area_missing": (with_rows("unemployment", (None, D(2018, 1, 1), 4.0)), U, 1, clean()),
    "figure_missing": (with_rows("unemployment", ("D", D(2018, 1, 1), None)), U, 1, clean()),
    "figure_conflict": (
        with_rows("unemployment", ("A", D(2018, 1, 1), 99.0)),
        U,
        2,
        with_rows("unemployment", ("D", D(2018, 1, 1), 9.0)),
    ),
    "area_without_figures": (
        clean() | {"unemployment": [f for f in clean()["unemployment"] if f[0] != "C"]},
        U,
        10,
        clean() | {"unemployment": [f for f in clean()["unemployment"] if f[0] != "C"] + [("C", D(2018, 1, 1), 1.0)]},
    ),
}


@pytest.mark.parametrize("code", SPOILT)
def test_a_rule_and_just_inside_it(code):
    rows, table, count, inside = SPOILT[code]
    tables = read(rows)
    assert [found for found in about(tables) if found[0] == code] == [(code, table, count)]
    assert code not in {found[0] for found in about(read(inside))}
    kept = len(tables.arrays(table)["value"])
    aside = sum(q.rows for q in tables.quarantine if q.table == table)
    assert kept + aside == len(rows[table.partition(".")[2]])
    for check in tables.findings:
        for lang in LANGUAGES:
            assert all((check.message(lang), check.reason(lang), check.remedy(lang)))
        if check.arms:
            assert sum(arm["count"] for arm in check.arms.values()) == check.count


def test_every_rule_on_what_changes_has_its_case():
    assert {rule.code for rules in CHANGING_RULES.values() for rule in rules} <= SPOILT.keys()


def test_area_of_a_table_of_changes_without_figures():
    rows = clean() | {"unemployment": [f for f in clean()["unemployment"] if f[0] != "C"]}
    assert ("area_without_figures", U, 10) in about(read(rows, protocol(area="place")))


def test_values_are_judged_as_covariates():
    rows = clean()
    words = changes([(*r[:4], "Single " if i < 4 else r[4]) for i, r in enumerate(rows["household"])])
    words.loc[5, "value"] = "onbekend"
    found = about(read(rows, household=words), "changes.household")
    assert {("category_spelling", H, 4), ("category_unknown_word", H, 1), ("blank_around", H, 4)} <= set(found)
    empty = changes([(*r[:4], None if i < 2 else r[4]) for i, r in enumerate(rows["household"])])
    assert ("covariate_missing", H, 2) in about(read(rows, household=empty))


def test_areas_that_the_study_does_not_name_are_set_aside():
    made = protocol()
    spec = made.data.areas["unemployment"].model_copy(
        update={"codes": {"area": {"A": ("A",), "B": ("B",), "C": ("C",)}}}
    )
    made = made.model_copy(update={"data": made.data.model_copy(update={"areas": {"unemployment": spec}})})
    tables = read(with_rows("unemployment", ("D", D(2018, 1, 1), 4.0), ("E", D(2018, 1, 1), 5.0)), made)
    assert ("area_unknown", U, 2) in about(tables)
    assert set(tables.arrays(U)["area"]) == {"A", "B", "C"}


def test_rows_before_the_window_stay():
    tables = read(with_rows("household", (P, D(1990, 1, 1), D(1995, 1, 1), D(1990, 1, 1), "single")))
    assert about(tables) == [] and len(tables.arrays(H)["value"]) == 31


def test_a_value_that_is_unknown_and_a_figure_that_is_old():
    rows = clean()
    rows["household"] = [r for r in rows["household"] if r[0] != P]
    rows["unemployment"] = [f for f in rows["unemployment"] if f[1] < D(2018, 1, 1)]
    made = protocol()
    cut = sample.from_register(made, read(rows))
    found = {(c.code, c.params["column"]): c for c in sample.judge_sample(cut)}
    mine = int((cut.people.ids[cut.entries.person] == P).sum())
    assert found["value_not_known", "household"].count == mine > 0
    day = cut.known_day(cut.entries)
    old = (day - (D(2018, 2, 1) - D(1970, 1, 1)).days) > 731  # December 2017, known on 1 February 2018
    assert found["figure_old", "unemployment"].count == int(old.sum()) > 0
    assert ("value_not_known", "debt") not in found
    whole = sample.judge_sample(sample.from_register(made, read(clean())))
    assert not {"value_not_known", "figure_old"} & {c.code for c in whole}


def test_a_category_that_only_starters_have():
    rows = clean(90)

    def found(first: int) -> list[int]:
        """A change of every starter so many days before the start."""
        more = [(e[0], e[2] - dt.timedelta(days=first), None, e[2] - dt.timedelta(days=first), "odd")
                for e in rows["episodes"]]  # fmt: skip
        cut = sample.from_register(protocol(), read(rows | {"household": rows["household"] + more}))
        checks = sample.judge_sample(cut)
        assert first > 1 or "odd" in cut.group("household", (), cut.entries).levels
        return [c.count for c in checks if c.code == "level_one_arm" and c.params["column"] == "household"]

    (count,) = found(1)
    starters = sample.from_register(protocol(), read(rows)).entries.arm == 1
    assert count == int(starters.sum())
    assert found(60) == []  # they were at risk with it before


ODD: dict[str, tuple[Any, ...]] = {
    "person": ("", None, "MARKED", "p001"),
    "start": ("", None, "31-02-2016", "MARKED", "9999-12-31", "0001-01-01", "1899-12-31", "2019-01-01"),
    "end": ("", None, "MARKED", "9999-12-31", "2016-01-01"),
    "registered": ("", None, "MARKED", "2031-01-01", "2018-06-01"),
    "value": ("", None, "MARKED", "?", "1e400", "nan", "-9", "missing", "unknown"),
    "area": ("", None, "MARKED", "X", "A"),
    "month": ("", None, "MARKED", "2019-00", "2019", "201911", "9999-01"),
}


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2, 0.6]), st.sampled_from(["category", "exclude"]))
def test_any_rows_end_in_a_result_or_an_error_of_ours(seed, odd, missing):
    rng, all_frames = np.random.default_rng(seed), frames(clean())
    tables = {f"changes.{n}": f for n, f in all_frames["changes"].items()} | {
        "areas.unemployment": all_frames["areas"]["unemployment"]
    }
    for name, frame in tables.items():
        frame = frame.astype(object)
        for column in frame:
            if pd.api.types.is_datetime64_any_dtype(tables[name][column]):
                frame[column] = [None if pd.isna(v) else f"{v:%d-%m-%Y}" for v in tables[name][column]]
            for row in np.flatnonzero(rng.random(len(frame)) < odd):
                frame.at[row, column] = ODD[column][rng.integers(len(ODD[column]))]
        all_frames["areas" if name.startswith("areas") else "changes"][name.partition(".")[2]] = frame
    made = protocol(eligibility='exclude = { household = ["couple"] }')
    made = made.model_copy(update={"covariates": made.covariates.model_copy(update={"missing": missing})})
    try:
        tables_read = register.from_frames(made, **all_frames)
        assert all("MARKED" not in c.message("nl") + str(dict(c.params)) for c in tables_read.findings)
        for name, frame in tables.items():
            kept = len(tables_read.arrays(name)["value"])
            assert kept + sum(q.rows for q in tables_read.quarantine if q.table == name) == len(frame)
        cut = sample.from_register(made, tables_read)
        assert np.isfinite(cut.design(cut.entries).matrix()).all()
    except EvalkitError as error:
        assert "MARKED" not in error.text("nl") + str(error)
        return
    for arm in ("treated", "comparison"):
        rows = [row for row in cut.flow if row.arm == arm]
        assert rows[0].entries == sum(row.entries for row in rows[1:])
        assert rows[0].persons == sum(row.persons for row in rows[1:])


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(rows: dict[str, Any], **tables: pd.DataFrame) -> list[tuple[str, str]]:
    with pytest.raises(DataError) as error:
        read(rows, **tables)
    for lang in LANGUAGES:
        assert MARKER not in error.value.text(lang)
    return [(fault.code, fault.place) for fault in error.value.faults]


def test_what_cannot_be_read_is_refused():
    rows = clean()
    odd = changes(rows["household"]).assign(start=MARKER)
    assert refused(rows, household=odd) == [("data.dates", "data.changes.household.columns.start"),
                                            ("data.no_rows", "data.changes.household")][:1]  # fmt: skip
    months = figures(rows["unemployment"]).assign(month=MARKER)
    assert refused(rows, unemployment=months)[0] == ("data.months", "data.areas.unemployment.columns.month")
    words = figures(rows["unemployment"]).assign(value=MARKER)
    assert refused(rows, unemployment=words)[0] == ("data.numbers", "data.areas.unemployment.columns.value")
    strange = changes([("q" + r[0], *r[1:]) for r in rows["household"]])
    assert ("data.orphans", "data.changes.household.columns.person") in refused(rows, household=strange)
    numbers = changes(rows["household"]).assign(value=(bsn(8) * 4)[:30])
    assert refused(rows, household=numbers) == [("data.bsn", "changes.household")]
    assert refused(rows, debt=changes(rows["debt"], False).drop(columns="value"))[0][0] == "data.missing_columns"
    assert refused(rows, debt=changes(rows["debt"], False).head(0))[0][0] == "data.empty_file"


def test_a_table_that_is_not_given():
    given = frames(clean())
    del given["areas"]["unemployment"]
    with pytest.raises(DataError, match="data.empty_file"):
        register.from_frames(protocol(), **given)


# -- from files -----------------------------------------------------------------------------------------------------


def _files(persons: int = 120) -> dict[str, str]:
    rng = np.random.default_rng(5)
    sex, town, kind, begins = (rng.integers(n, size=persons) for n in (2, 2, 2, 90))
    first = D(2018, 3, 1)
    entry = [first + dt.timedelta(days=int(n)) for n in begins]
    start = {i: entry[i] + dt.timedelta(days=int(rng.integers(5, 80))) for i in range(0, persons, 3)}
    made = {
        "p.csv": ["p;s;b;t", *(f"p{i:03d};{'mv'[sex[i]]};{1960 + i % 40};GM000{town[i]}" for i in range(persons))],
        "b.csv": ["p;a;b;r", *(f"p{i:03d};{day:%d-%m-%Y};15-10-2019;werk" for i, day in enumerate(entry))],
        "e.csv": ["p;t;a;b", *(f"p{i:03d};s;{day:%d-%m-%Y};01-12-2018" for i, day in start.items())],
        "h.csv": ["p;a;b;v;r", *(f"p{i:03d};01-01-2017;;0{kind[i] + 1};03-01-2017" for i in range(persons))],
        "u.csv": ["g;m;v", *(f"GM000{g};{2017 + i // 12}MM{i % 12 + 1:02d};{rng.integers(3, 9)},5"
                             for g in range(2) for i in range(30))],
    }  # fmt: skip
    return {name: "\n".join(lines) + "\n" for name, lines in made.items()}


FILES = _files()
STUDY = """
seed = 1
languages = ["nl", "en"]
title = { nl = "Wat verandert", en = "What changes" }
[data]
window = { first = 2018-01-01, last = 2019-12-31 }
[data.persons]
file = "p.csv"
columns = { person = "p", sex = "s", birth_year = "b", municipality = "t" }
[data.benefits]
file = "b.csv"
columns = { person = "p", start = "a", end = "b", reason = "r" }
codes.reason = { work = ["werk"] }
[data.episodes]
file = "e.csv"
columns = { person = "p", type = "t", start = "a", end = "b" }
codes.type = { training = ["s"] }
[data.changes.household]
file = "h.csv"
columns = { person = "p", start = "a", end = "b", value = "v", registered = "r" }
codes.value = { single = ["01"], couple = ["02"] }
[data.areas.unemployment]
file = "u.csv"
columns = { area = "g", month = "m", value = "v" }
area = "municipality"
[time]
horizon = 6
[treatment]
instrument = "training"
[[outcome]]
name = "left"
kind = "event"
source = "exit:work"
primary = true
[covariates]
numeric = ["unemployment"]
categorical = ["sex", "household"]
[[analysis]]
id = "main"
method = "matching"
exact = ["elapsed"]
caliper = { width = 5.0, unit = "sd_linear" }
[gate]
show_anyway = "a test"
[eligibility]
exclude = { household = ["unknown"] }
"""


def folder(path: Path, **changed: str) -> Path:
    (path / "data").mkdir()
    for name, text in (FILES | {f"{k}.csv": v for k, v in changed.items()}).items():
        (path / "data" / name).write_text(text, encoding="utf-8")
    (path / "study.toml").write_text(STUDY, encoding="utf-8")
    return path / "study.toml"


def test_files_are_read_typed_and_recorded(tmp_path):
    made = study.read(folder(tmp_path))
    seen = []
    tables = register.read(made, seen.append)
    assert [dialect.file for dialect in seen] == ["p.csv", "b.csv", "e.csv", "h.csv", "u.csv"]
    assert [item.name for item in tables.inputs] == [dialect.file for dialect in seen]
    household, rate = tables.arrays("changes.household"), tables.arrays("areas.unemployment")
    codes = [line.split(";")[3] for line in FILES["h.csv"].splitlines()[1:]]
    assert household["value"].tolist() == [{"01": "single", "02": "couple"}[code] for code in codes]
    assert household["registered"][0] == np.datetime64("2017-01-03")
    assert (rate["area"][0], rate["month"][0]) == ("GM0000", np.datetime64("2017-01-01"))
    assert (rate["value"] % 1 == 0.5).all()
    assert rate["value"].dtype == np.float64 and np.array_equal(rate["figure"], np.arange(60))
    assert tables.changes["household"].columns == ["change", "person", "start", "end", "value", "registered"]
    assert set(tables.areas) == {"unemployment"}
    with pytest.raises(KeyError):
        tables.arrays("changes.nothing")
    with pytest.raises(KeyError):
        tables.arrays("changes")
    assert len(tables.set_aside("changes.household").collect()) == 0


def test_a_run_tells_what_counts_as_known(tmp_path):
    from evalkit.report import write
    from evalkit.report.plain import design_text
    from evalkit.run import run

    more = FILES["h.csv"] + "p003;05-05-2017;;99;05-05-2017\np005;05-05-2017;;;05-05-2017\n"
    document = dict(run(folder(tmp_path, h=more)).results.document)
    assert document["study"]["protocol"]["data"]["areas"]["unemployment"]["delay_months"] == 1
    assert any(row["reason"] == "excluded_by_value:household" for row in document["flow"])
    pages = [path.read_text("utf-8") for path in write(document, tmp_path) if path.suffix == ".html"]
    for lang, page in zip(("nl", "en"), sorted(pages, key=lambda p: 'lang="en"' in p), strict=True):
        view = View(document, lang)
        assert view.say("report.changing.registered") in page
        assert view.reason("excluded_by_value:household") in page
        assert view.table_name("changes.household") in page
        text = design_text(document, lang)
        assert view.table_name("changes.household") in text
        for key in ("report.table.changes", "flow.excluded_by_value"):
            assert key not in page + text


def test_doctor_looks_at_these_tables_too(tmp_path):
    good = doctor.examine(folder(tmp_path))
    assert good.exit_code == 0 and "changes.household" in good.text("en") and "areas.unemployment" in good.text("nl")
    (tmp_path / "data" / "u.csv").write_text("x;y\n1;2\n", encoding="utf-8")
    bad = doctor.examine(tmp_path)
    assert bad.exit_code == 3 and "data.header" in bad.text("en")


def test_a_mapping_is_proposed(tmp_path):
    many = range(40)
    files = {
        "personen.csv": "pseudoniem;geslacht;geboortejaar;gemeente\n"
        + "".join(f"p{i:03d};{'mv'[i % 2]};{1960 + i};GM{i % 3:04d}\n" for i in many),
        "mutaties.csv": "pseudoniem;vanaf;leefvorm;registratiedatum\n"
        + "".join(f"p{i:03d};{i % 28 + 1:02d}-05-2016;{'ab'[i % 2]};{i % 28 + 1:02d}-06-2016\n" for i in many),
        "ontheffing.csv": "pseudoniem;vanaf;tot;ontheffing\n"
        + "".join(f"p{i:03d};{i % 28 + 1:02d}-05-2016;;{'vg'[i % 2]}\n" for i in many),
        "cijfers.csv": "regio;perioden;werkloosheid\n"
        + "".join(f"GM{i % 3:04d};2016MM{1 + i // 3 % 12:02d};{4 + i % 5},{i % 10}\n" for i in many),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    proposal = mapping.propose([tmp_path / name for name in files])
    assert [(table.table, dict(table.columns)) for table in proposal.tables][1:] == [
        (
            "changes.household",
            {"person": "pseudoniem", "start": "vanaf", "value": "leefvorm", "registered": "registratiedatum"},
        ),
        ("changes.exemption", {"person": "pseudoniem", "start": "vanaf", "end": "tot", "value": "ontheffing"}),
        ("areas.unemployment", {"area": "regio", "month": "perioden", "value": "werkloosheid"}),
    ]
    for lang in LANGUAGES:
        text = mapping.as_toml(proposal, lang)
        assert "[data.areas.unemployment]" in text and 'area = "municipality"' in text
        assert not any(f"p{i:03d}" in text for i in many) and "GM0001" not in text


def test_months_are_written_in_many_ways():
    written = {
        "2019-03": "2019-03", "2019-3": "2019-03", "201903": "2019-03", "03-2019": "2019-03", "3/2019": "2019-03",
        "2019MM03": "2019-03", "2019KW01": "2019-03", "2019KW04": "2019-12", "2019": "2019-12", "2019JJ00": "2019-12",
        "15-03-2019": "2019-03", "2019-03-15": "2019-03",
    }  # fmt: skip
    bad = ["2019-13", "2019KW05", "maart 2019", "1850-01", "19-03"]
    rows = clean()
    frame = pd.DataFrame({"area": "A", "month": [*written, *bad], "value": range(len(written) + len(bad))})
    tables = read(rows, unemployment=frame)
    got = tables.arrays(U)
    months = dict(zip(got["value"].tolist(), got["month"].astype("datetime64[M]").astype(str), strict=True))
    assert months == {float(i): month for i, month in enumerate(written.values())}
    assert ("date_unreadable", U, len(bad)) in about(tables)
    for numbers in ([201903, 2019], [201903.0, 2019.0], [dt.date(2019, 3, 15), dt.date(2019, 12, 1)]):
        frame = pd.DataFrame({"area": "A", "month": numbers, "value": [1.0, 2.0]})
        got = read(rows, unemployment=frame).arrays(U)["month"].astype("datetime64[M]").astype(str)
        assert got.tolist() == ["2019-03", "2019-12"]
