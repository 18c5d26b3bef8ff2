"""Faulty tables: each answered by one clear message without a value from a row; checks count what they say."""

from __future__ import annotations

import re
import string
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from register_example import BENEFITS, EPISODES, MARKER, PERSONS, TABLE, bsn, write, write_table

from evalkit import register
from evalkit.errors import DataError
from evalkit.register.checks.columns import BIRTH_RULES, COLUMN_RULES
from evalkit.register.checks.days import DAY_RULES
from evalkit.register.checks.rules import ROW_RULES
from evalkit.sample.checks import SAMPLE_RULES
from evalkit.text import LANGUAGES, catalogue, say

BSN = bsn(8)


def swap(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


MANY = [f"p{i};m;1980;1" for i in range(8)]
PERSONS_BSN = "pseudoniem;sekse;gebjaar;inkomen;extra\n" + "\n".join(
    f"{row};{number}" for row, number in zip(MANY, BSN, strict=True)
)

FAULTY = {
    "column renamed": ({"benefits": swap(BENEFITS, ("ingang", "ingangsdatum"))}, "data.missing_columns"),
    "two columns missing": ({"episodes": swap(EPISODES, ("soort", "x"), ("gepland", "y"))}, "data.missing_columns"),
    "empty file": ({"persons": ""}, "data.empty_file"),
    "blank file": ({"persons": "\n \n\n"}, "data.empty_file"),
    "header only": ({"episodes": EPISODES.splitlines()[0]}, "data.empty_file"),
    "wrong delimiter": ({"persons": PERSONS.replace(";", "|")}, "data.one_column"),
    "no header": (
        {"persons": f"{MARKER};{MARKER};1980;1\n" + PERSONS.split("\n", 1)[1]},
        "data.header",
    ),
    "no header, citizen numbers": (
        {"persons": "\n".join(f"{number};m;1980;1" for number in BSN)},
        "data.header data.bsn",
    ),
    "column twice": (
        {"persons": swap(PERSONS, ("gebjaar;inkomen", "sekse;inkomen"))},
        "data.double_column data.missing_columns",
    ),
    "not text": ({"benefits": b"pseudoniem;\x81\x8d\x8f\n1;2\n"}, "data.encoding"),
    "open quote": ({"persons": PERSONS.replace("0001;m", f'0001;"m{MARKER}')}, "data.ragged"),
    "citizen numbers as key": (
        {"persons": "pseudoniem;sekse;gebjaar;inkomen\n" + "\n".join(f"{number};m;1980;1" for number in BSN)},
        "data.bsn",
    ),
    "citizen numbers in a column not used": ({"persons": PERSONS_BSN}, "data.bsn"),
    "american dates": (
        {
            "benefits": swap(
                BENEFITS, *((d, f"{d[3:5]}/28/{d[6:]}") for d in ("01-02-2016", "15-03-2017", "05-05-2019"))
            )
        },
        "data.dates",
    ),
    "words as dates": ({"episodes": swap(EPISODES, ("01-03-2016", MARKER), ("01-04-2017", MARKER))}, "data.dates"),
    "decimal points": ({"persons": swap(PERSONS, ("1.234,50", "1234.50"), ("12,5", "12.5"))}, "data.numbers"),
    "birth dates for years": (
        {"persons": swap(PERSONS, ("1980", "01-05-1980"), ("1990", MARKER), ("1975", "x"))},
        "data.numbers",
    ),
    "no code known": ({"episodes": swap(EPISODES, ("S1", MARKER), ("S2", "s2"), ("Café", "c"))}, "data.codes"),
    "no reason known": ({"benefits": swap(BENEFITS, (";01\n", ";1\n"), (";21", ";9"), (";02", ";2"))}, "data.codes"),
    "persons contradict": ({"persons": PERSONS + f"0001;{MARKER};1980;1\n"}, "data.conflicting_persons"),
    "zeros lost": ({"benefits": BENEFITS.replace("\n000", "\n").replace("\n00", "\n")}, "data.orphans"),
    "all before the window": (
        {"episodes": swap(EPISODES, ("-2016", "-2001"), ("-2017;;", "-2001;01-05-2001;"), ("-2019", "-2002"))},
        "data.no_rows",
    ),
    "a field too many": ({"persons": PERSONS.replace("\n00", "\n ; 00")}, "data.ragged"),
    "rows longer than header": ({"persons": PERSONS.replace("\n0", f"\n{MARKER};0")}, "data.ragged"),
    "keys empty": ({"persons": "pseudoniem;sekse;gebjaar;inkomen\n;m;1980;1\n;v;1981;2\n"}, "data.no_rows"),
    "every date a word": (
        {"episodes": f"pseudoniem;soort;van;tot;gepland\n0001;S1;{MARKER};;\n0002;S1;{MARKER};;\n"},
        "data.dates",
    ),
}


def spoil(tmp_path, changed) -> DataError:
    with pytest.raises(DataError) as error:
        register.read(write(tmp_path, **changed))
    return error.value


def says_nothing_private(error: DataError) -> None:
    for lang in LANGUAGES:
        text = error.text(lang)
        assert MARKER not in text
        assert not any(number in text for number in BSN)
        for fault in error.faults:
            assert fault.message(lang) and fault.remedy(lang)
    cause: BaseException | None = error
    while cause is not None:
        assert MARKER not in str(cause)
        cause = cause.__cause__ or cause.__context__


@pytest.mark.parametrize("case", FAULTY)
def test_faulty_files(tmp_path, case):
    changed, codes = FAULTY[case]
    error = spoil(tmp_path, changed)
    assert [fault.code for fault in error.faults] == codes.split()
    assert error.exit_code == 3
    says_nothing_private(error)


def test_missing_file(tmp_path):
    study = write(tmp_path)
    (tmp_path / "data" / "uitkering.csv").rename(tmp_path / "data" / "uitkeringen.csv")
    with pytest.raises(DataError) as error:
        register.read(study)
    assert [fault.code for fault in error.value.faults] == ["data.missing_file"]
    assert "uitkeringen.csv" in error.value.text("nl")


def test_broken_parquet(tmp_path):
    study = write(tmp_path)
    (tmp_path / "data" / "p.parquet").write_bytes(b"PAR1" + MARKER.encode())
    spec = study.data.persons.model_copy(update={"file": "p.parquet"})
    study = study.model_copy(update={"data": study.data.model_copy(update={"persons": spec})})
    with pytest.raises(DataError) as error:
        register.read(study)
    assert [fault.code for fault in error.value.faults] == ["data.unreadable_file"]
    says_nothing_private(error.value)


def test_all_faults_together(tmp_path):
    error = spoil(
        tmp_path, {"persons": PERSONS_BSN.replace("sekse", "geslacht"), "benefits": "", "episodes": EPISODES[:10]}
    )
    assert [(fault.code, fault.place) for fault in error.faults] == [
        ("data.missing_columns", "data.persons.columns"),
        ("data.bsn", "data.persons.columns"),
        ("data.empty_file", "data.benefits.file"),
        ("data.empty_file", "data.episodes.file"),
    ]
    fault = error.faults[0]
    assert "geslacht" in fault.remedy() and "sekse" in fault.message()
    assert dict(error.faults[1].params) == {"file": "personen.csv", "column": "extra", "position": 5}


def test_faults_of_contents_together(tmp_path):
    changed = {
        "persons": PERSONS + "0001;v;1980;1\n",
        "benefits": BENEFITS.replace("01-02-2016", "x").replace("15-03-2017", "x").replace("01-01-2018", "x"),
        "episodes": swap(EPISODES, ("S1", MARKER), ("S2", "s2"), ("Café", "c")),
    }
    codes = [fault.code for fault in spoil(tmp_path, changed).faults]
    assert codes == ["data.conflicting_persons", "data.dates", "data.codes"]


FILLER = "".join(f"{i};m;1980;1\n" for i in range(100, 110))
WARNED = {
    "person_missing": ("persons", PERSONS + ";m;1980;1\n", 1, True),
    "person_duplicate": ("persons", PERSONS + "0001;m;1980;1234,5\n 0001 ;m;1980;1234,50\n", 2, True),
    "number_unreadable": ("persons", PERSONS + FILLER + f"0011;m;1980;{MARKER}\n", 1, False),
    "birth_year_implausible": ("persons", PERSONS + "0011;m;1805;\n0012;m;2024;\n", 2, False),
    "spell_duplicate": ("benefits", BENEFITS + "0003;2018-01-01;30-06-2018;21\n", 1, True),
    "start_missing": ("benefits", BENEFITS + "0001;;30-06-2018;21\n", 1, True),
    "date_unreadable": ("benefits", BENEFITS + f"0001;{MARKER};30-06-2018;21\n", 1, True),
    "end_before_start": ("benefits", BENEFITS + "0001;01-01-2019;31-12-2018;21\n", 1, True),
    "outside_window": ("benefits", BENEFITS + "0001;01-01-2024;;\n0001;01-01-2013;31-12-2014;01\n", 2, True),
    "orphan": ("benefits", BENEFITS + f"{MARKER};01-01-2019;;\n", 1, True),
    "code_unknown": ("benefits", BENEFITS + f"0001;01-01-2019;01-02-2019;{MARKER}\n", 1, False),
    "reason_missing": ("benefits", BENEFITS, 1, False),
    "reason_without_end": ("benefits", BENEFITS + "0001;01-01-2019;;21\n", 1, False),
    "blank_around": ("benefits", BENEFITS + "0001;01-01-2019;01-02-2019;21 \n", 1, False),
    "open_end": ("benefits", BENEFITS + "0001;01-01-2019;31-12-9999;\n", 1, False),
    "spell_overlap": ("benefits", BENEFITS + "0003;01-06-2018;01-07-2018;21\n0003;01-07-2018;2-7-2018;01\n", 2, False),
    "type_missing": ("episodes", EPISODES + "0003;;01-02-2018;;\n", 1, False),
    "date_missing": (
        "episodes",
        EPISODES.replace(";;\n", ";;1-1-2020\n") + f"0003;S1;01-02-2018;;{MARKER}\n",
        1,
        False,
    ),
    "episode_without_benefit": ("episodes", EPISODES + "0003;S1;01-08-2018;;\n0001;S1;01-02-2018;;\n", 2, False),
    "ragged_record": ("episodes", EPISODES + f"0003;S1;01-08-2018;;;{MARKER}\n", 1, True),
}


@pytest.mark.parametrize("code", WARNED)
def test_checks_count(tmp_path, code):
    table, text, count, dropped = WARNED[code]
    read = register.read(write(tmp_path, **{table: text}))
    [check] = [check for check in read.findings if check.code == code]
    rows = len(text.strip().splitlines()) - 1
    assert (check.table, check.count, check.severity in ("warn", "info")) == (table, count, True)
    if dropped:
        assert check.share == pytest.approx(count / rows)
    assert [(q.table, q.rows) for q in read.quarantine if q.code == code] == ([(table, count)] if dropped else [])
    kept = len(next(iter(read.arrays(table).values())))
    assert kept + sum(q.rows for q in read.quarantine if q.table == table) == rows
    for lang in LANGUAGES:
        for sentence in (check.message(lang), check.reason(lang), check.remedy(lang)):
            assert sentence and MARKER not in sentence


def test_a_clean_register_has_no_findings(tmp_path):
    benefits = BENEFITS.replace("30-06-2020;", "30-06-2020;21")
    episodes = EPISODES.replace("01-04-2017;;", "02-04-2017;05-09-2017;")
    read = register.read(write(tmp_path, PERSONS.replace("1975;", "1975;0"), benefits, episodes))
    assert read.findings == ()


def test_rows_set_aside_can_be_found_again(tmp_path):
    benefits = BENEFITS.replace("0003;01-01-2018", "0099;01-01-2018") + "0001;05-01-2019;01-01-2019;01\n"
    read = register.read(write(tmp_path, benefits=benefits))
    rows = read.set_aside("benefits").select("__row", "__reason").collect("pyarrow").to_native().to_pylist()
    assert rows == [{"__row": 3, "__reason": "orphan.person"}, {"__row": 6, "__reason": "end_before_start"}]


def test_running_spells_after_an_overlap_stay(tmp_path):
    """An open spell overlaps everything after it; identical dates with another reason are two spells."""
    benefits = BENEFITS + "0002;01-01-2019;01-02-2019;01\n0002;01-01-2019;01-02-2019;21\n"
    read = register.read(write(tmp_path, benefits=benefits))
    assert {c.code: c.count for c in read.findings}["spell_overlap"] == 2
    reasons = read.arrays("benefits")["reason"][read.arrays("benefits")["person"] == "0002"]
    assert reasons.tolist() == [None, "education", "work"]


def test_declared_encoding_that_looks_wrong(tmp_path):
    read = register.read(write(tmp_path, layout='encoding = "cp1252"'))
    codes = [c.code for c in read.findings if c.table == "episodes"]
    assert codes == ["encoding_suspect", "code_unknown", "episode_never_closed"]


def test_star_takes_the_rest(tmp_path):
    study = write(tmp_path, benefits=BENEFITS + "0001;01-01-2019;01-02-2019;99\n")
    spec = study.data.benefits
    spec = spec.model_copy(update={"codes": {"reason": {"other": ("*",), "work": ("01",)}}})
    study = study.model_copy(update={"data": study.data.model_copy(update={"benefits": spec})})
    read = register.read(study)
    assert read.arrays("benefits")["reason"].tolist() == ["work", "other", None, "other", "unknown", "other"]
    assert [c.code for c in read.findings if c.table == "benefits"] == ["reason_missing"]


TABLE_FAULTY = {
    "unit twice": (TABLE + "a1;1;1;x;1;1\n", "data.duplicate_units"),
    "treatment in words": (TABLE + f"a4;{MARKER};1;x;1;1\n", "data.treatment_values"),
    "treatment two": (TABLE + "a4;2;1;x;1;1\n", "data.treatment_values"),
    "outcome in words": (TABLE + f"a4;1;1;x;{MARKER};1\n", "data.not_numeric"),
    "covariate in words": (TABLE + f"a4;1;{MARKER};x;1;1\n", "data.not_numeric"),
    "no unit at all": (TABLE.replace("\na", "\n;").replace("\n;1;", "\n;"), "data.ragged"),
    "column missing": (TABLE.replace("y2", "y3"), "data.missing_columns"),
    "citizen numbers": (TABLE + "\n".join(f"{number};1;1;x;1;1" for number in BSN), "data.bsn"),
    "three at once": (
        TABLE + f"a1;{MARKER};1;x;1;{MARKER}\n",
        "data.not_numeric data.duplicate_units data.treatment_values",
    ),
}


@pytest.mark.parametrize("case", TABLE_FAULTY)
def test_faulty_tables(tmp_path, case):
    text, codes = TABLE_FAULTY[case]
    with pytest.raises(DataError) as error:
        register.read_table(write_table(tmp_path, text))
    assert [fault.code for fault in error.value.faults] == codes.split()
    says_nothing_private(error.value)


def test_table_rows_that_cannot_be_used(tmp_path):
    table = register.read_table(write_table(tmp_path, TABLE + ";1;1;x;1;1\na5;;1;x;1;1\n"))
    assert [(q.code, q.column, q.rows) for q in table.quarantine] == [
        ("unit_missing", "nr", 1),
        ("treatment_missing", "groep", 1),
    ]
    assert len(table.columns["nr"]) == 3 and not np.isnan(table.columns["groep"]).any()


def test_the_wrong_kind_of_study(tmp_path):
    with pytest.raises(DataError, match="not_a_register"):
        register.read(write_table(tmp_path))
    with pytest.raises(DataError, match="not_a_table"):
        register.read_table(write(tmp_path))


def _own(lang: str) -> dict[str, set[str | None]]:
    import tomllib

    from evalkit.text import _flatten

    sentences: dict[str, str] = {}
    for name in ("data.toml", "checks.toml"):
        sentences |= _flatten(tomllib.loads(files("evalkit.text").joinpath(lang, name).read_text("utf-8")))
    return {
        key: {f"{name}:{spec}" for _, name, spec, _ in string.Formatter().parse(text) if name}
        for key, text in sentences.items()
    }


def test_catalogues_agree():
    assert _own("nl") == _own("en")
    for key in _own("en"):
        assert key in catalogue("en")


def test_every_code_is_documented():
    docs = Path(__file__).parent.parent / "docs"
    page = (docs / "register.md").read_text("utf-8")
    for key in _own("en"):
        if key.startswith("fault."):
            assert f"`{key.removeprefix('fault.').rsplit('.', 1)[0]}`" in page, key


def test_the_page_of_checks_says_what_the_program_says():
    page = (Path(__file__).parent.parent / "docs" / "checks.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, flags=re.M))
    rules = [*(rule for table in ROW_RULES.values() for rule in table), *DAY_RULES, *SAMPLE_RULES]
    severity = {rule.code: rule.severity for rule in (*rules, *COLUMN_RULES, *BIRTH_RULES)}
    for code in {key.split(".")[1] for key in _own("en") if key.startswith("check.")}:
        shown, _, why, fix = rows[code].split(" | ")
        assert shown == severity.get(code, shown) and shown in ("error", "warn", "info")
        assert (why, fix) == (say(f"check.{code}.why"), say(f"check.{code}.fix"))
