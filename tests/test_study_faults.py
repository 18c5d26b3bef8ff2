"""Faulty study files: each is answered by the right code on the right line, all faults at once, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evalkit.errors import StudyError
from evalkit.study import parse, read, template, translate
from evalkit.text import catalogue

GOOD = template("en")

TABLE = """\
seed = 1
languages = ["en"]
title = { en = "Did it work?" }
[table]
file = "nsw.csv"
unit = "id"
treatment = "treat"
outcomes = { work = ["w1", "w2", "w3"] }
[treatment]
instrument = "nsw"
design = "randomised"
[[outcome]]
name = "work"
kind = "state"
primary = true
[covariates]
numeric = ["age"]
[[analysis]]
id = "main"
method = "experiment"
"""


def faults(text, path="study.toml"):
    """The faults of a text, after checking that each can be said in both languages."""
    with pytest.raises(StudyError) as caught:
        parse(text, path)
    return _checked(caught.value)


def _checked(error):
    for fault in error.faults:
        assert fault.text("nl") != fault.text("en")
        assert "{" not in fault.message("en").replace("{{", "")
    assert error.exit_code == 2
    return error.faults


def edit(text, old, new):
    """Replace one line that begins with ``old``; ``new`` says everything, ``^`` at its end marks the line expected."""
    lines = text.splitlines()
    hits = [i for i, line in enumerate(lines) if line.startswith(old)]
    assert hits, old
    lines[hits[0] : hits[0] + 1] = new.split("\n")
    marked = [i for i, line in enumerate(lines) if line.endswith("#^")]
    return "\n".join(lines) + "\n", (marked or [hits[0]])[0] + 1


def line_of(text, start):
    return next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(start))


U, W = "study.unknown_key", "study.wrong_type"

# the line to replace, what it becomes (#^ marks where the fault should be, otherwise the replaced line), the code
ONE_FAULT = [
    ("seed =", "sead = 1\nseed = 1", U, 0),
    ("schema =", "schema = 2", "study.not_allowed", 0),
    ("seed =", 'seed = "1"', f"{W}.integer", 0),
    ("seed =", "seed = true", f"{W}.integer", 0),
    ("seed =", "seed = 1.5", f"{W}.integer", 0),
    ("seed =", "seed = -1", "study.out_of_range.at_least", 0),
    ("languages =", 'languages = ["nl", "en", "fr"]', "study.not_allowed", 0),
    ("languages =", 'languages = ["nl", "nl"]', "study.duplicate", 0),
    ("languages =", 'languages = [\n  "nl",\n  "en",\n  "en", #^\n]', "study.duplicate", 0),
    ("languages =", "languages = []", "study.empty", 0),
    ("languages =", 'languages = "nl"', f"{W}.list", 0),
    ("title =", 'title = { nl = "Wat?" }', "study.title_missing", 0),
    ("title =", 'title = { nl = "Wat?", en = "What?", fr = "Quoi?" }', U, 0),
    ("title =", 'title = "What?"', f"{W}.table", 0),
    ("title =", 'title = { nl = "", en = "What?" }', "study.empty", 0),
    ("folder =", 'folder = "../data"', "study.path_outside", 0),
    ("folder =", 'folder = "/data"', "study.path_outside", 0),
    ("folder =", "folder = 'C:\\data'", "study.path_outside", 0),
    ("format =", 'format = { delimiter = "tab" }', "study.not_allowed", 0),
    ("format =", 'format = { date = "dd-mm-yyyy" }', "study.bad_date_format", 0),
    ("format =", 'format = { date = "%d-%m-%y" }', "study.bad_date_format", 0),
    ("window =", "window = { first = 2023-12-31, last = 2015-01-01 }", "study.window_reversed", 0),
    ("window =", "window = { first = 2015-01-01, last = 2016-12-31 }\n#", "study.horizon_window", "horizon ="),
    ("window =", 'window = { first = "01-01-2015", last = 2023-12-31 }', f"{W}.date", 0),
    ("window =", "window = { first = 2015-01-01T00:00:00, last = 2023-12-31 }", f"{W}.date", 0),
    ("window =", "window = { first = 1900-01-01, last = 2023-12-31 }", "study.out_of_range.at_least", 0),
    ("window =", "window = { first = 2015-01-01, last = 9999-12-31 }", "study.out_of_range.at_most", 0),
    ("window =", "window = { first = 2015-01-01 }", "study.missing_key", 0),
    ("columns.sex", 'columns.sex = "pseudoniem"', "study.column_twice", 0),
    ("columns.sex", 'columns.sex = "geslacht"\ncolumns.weight = "gewicht" #^', "study.reserved_name", 0),
    ("columns.sex", 'columns.sex = "geslacht"\ncolumns.Sex = "sekse" #^', "study.capitals", 0),
    ("columns.sex", 'columns.sex = "geslacht"\ncolumns.Person = "naam" #^', "study.capitals", 0),
    ("columns.sex", 'columns.sex = "geslacht"\ncolumns."my office" = "team" #^', "study.bad_name", 0),
    ("columns.sex", 'columns.sex = "geslacht"\ncodes.sekse = { man = ["M"] } #^', "study.codes_unmapped", 0),
    ("columns = {", 'columns = { person = "p", start = "i", end = "l", raeson = "r", reason = "x" }', U, 0),
    ("columns = {", 'columns = { person = "p", start = "i", reason = "x" }', "study.missing_key", 0),
    ("codes.reason", "codes.reason = { work = [11] }", f"{W}.text", 0),
    ("codes.reason", 'codes.reason = { work = "11" }', f"{W}.list", 0),
    ("codes.reason", "codes.reason = { work = [] }", "study.empty", 0),
    ("codes.reason", 'codes.reason = { work = ["1"], other = ["2", "1"] }', "study.code_twice", 0),
    ("codes.reason", 'codes.reason = { work = ["1"], any = ["*"] }', "study.reserved_name", 0),
    ("codes.reason", 'codes.reason = { work = ["1"], "to school" = ["*"] }', "study.bad_name", 0),
    ("codes.reason", 'codes.reason = { werk = ["werk"], other = ["*"] }', "study.not_allowed", "source ="),
    ("codes.reason", "#", "study.not_allowed", "source ="),
    ("codes.type", 'codes.type = { training = ["s"], wait = ["w"] }', "study.reserved_name", 0),
    ("codes.type", 'codes.type = { scholing = ["s"] }', "study.not_allowed", "instrument ="),
    ("codes.type", "#", "study.missing_key", "[data.episodes]"),
    ("clock =", 'clock = "referral"', "study.referral_unmapped", 0),
    ("horizon =", "horizon = 0", "study.out_of_range.at_least", 0),
    ("horizon =", "horizon = 241", "study.out_of_range.at_most", 0),
    ("follow_up =", 'follow_up = "complet"', "study.not_allowed", 0),
    ("age =", "age = [64, 18]", "study.range_reversed", 0),
    ("age =", "age = [18]", "study.wrong_length", 0),
    ("age =", "age = [18, 64, 70]", "study.wrong_length", 0),
    ("age =", 'age = "18-64"', f"{W}.list", 0),
    ("age =", "age = [18, 640]", "study.out_of_range.at_most", 0),
    ("instrument =", 'instrument = "trainning"', "study.not_allowed", 0),
    ("versus =", 'versus = "waiting"', "study.not_allowed", 0),
    ("versus =", 'versus = "training"', "study.versus_itself", 0),
    ("cluster =", 'cluster = "team"', "study.not_allowed", 0),
    ("kind =", 'kind = "events"', "study.not_allowed", 0),
    ("kind =", 'kind = "state"', "study.kind_of_source", 0),
    ("source =", 'source = "exit:wrk"', "study.not_allowed", 0),
    ("source =", 'source = "benefit"', "study.not_allowed", 0),
    ("primary =", "primary = false", "study.no_primary", "[[outcome]]"),
    ("primary =", "primary = 1", f"{W}.boolean", 0),
    ('source = "state', 'source = "state:benefit"\nprimary = true #^', "study.several_primary", 0),
    ('source = "state', 'source = "state:benefit"\nunit = "euro" #^', "study.unit_of_kind", 0),
    ('source = "state', "#", "study.missing_key", 'name = "on_benefit"'),
    ('name = "on_benefit"', 'name = "left_to_work"', "study.duplicate", 0),
    ('name = "on_benefit"', 'name = "on benefit"', "study.bad_name", 0),
    ("numeric =", 'numeric = ["age", "distnce"]', "study.unknown_column", 0),
    ("numeric =", 'numeric = ["age", "person"]', "study.unknown_column", 0),
    ("categorical =", 'categorical = ["sex", "distance"]', "study.duplicate", 0),
    ("columns.birth_year", "#", "study.age_without_birth_year", "age ="),
    ('name = "sex"', 'name = "sexe"', "study.unknown_column", 0),
    ('name = "sex"', 'name = "sex"\ncuts = [1] #^', "study.cuts_not_numeric", 0),
    ('name = "sex"', 'name = "age"', "study.cuts_missing", "[[subgroup]]"),
    ('name = "sex"', 'name = "age"\ncuts = [45, 27] #^', "study.not_ascending", 0),
    ('name = "sex"', 'name = "age"\ncuts = ["27"] #^', f"{W}.number", 0),
    ('name = "sex"', 'name = "age"\ncuts = [nan] #^', f"{W}.number", 0),
    ("[[subgroup]]", "[subgroup]", f"{W}.tables", 0),
    ("method =", 'method = "matchin"', "study.not_allowed", 0),
    ("method =", 'method = "experiment"', "study.not_randomised", 0),
    ("id =", "#", "study.missing_key", "[[analysis]]"),
    ("smd_warn =", "smd_warn = 0.3", "study.gate_order", 0),
    ("smd_fail =", "smd_fail = 0", "study.out_of_range.above", 0),
    ("support_min =", "support_min = 80", "study.out_of_range.at_most", 0),
    ("[costs]", '[costs]\nprogramme = { value = 5, low = 6, high = 7, source = "x" } #^', "study.cost_order", 0),
    ("[costs]", "[costs]\nprogramme = { value = 5, low = 4, high = 7 } #^", "study.missing_key", 0),
    ("[costs]", "[costs]\nprogramme = 5 #^", f"{W}.table", 0),
    ("profile =", 'profile = "Municipal"', "study.not_allowed", 0),
    ("minimum =", "minimum = 0", "study.out_of_range.at_least", 0),
    ("[labels.nl]", "[labels.du]", U, 0),
    ("seed =", "seed = 1\nseed = 2 #^", "study.key_twice", 0),
    ("[gate]", "[covariates]", "study.key_twice", 0),
    ("folder =", "folder = data", "study.syntax", 0),
    ("numeric =", 'numeric = ["age" "distance"]', "study.syntax", 0),
]


@pytest.mark.parametrize(
    ("old", "new", "code", "line"), ONE_FAULT, ids=[f"{row[2]}:{row[1][:40]}" for row in ONE_FAULT]
)
def test_one_fault(old, new, code, line):
    text, at = edit(GOOD, old, new)
    if line:
        at = line_of(text, line)
        if code == "study.missing_key" and line.startswith("name ="):
            at -= 1  # the heading above the name
    found = faults(text)
    assert found[0].place == f"study.toml line {at}"
    assert {fault.code for fault in found} == {code}
    assert len(found) == 1 or code == "study.age_without_birth_year"  # one cause, several places


TABLE_FAULTS = [
    ("unit =", 'unit = "treat"\n#', "study.column_role", "treatment ="),
    ("numeric =", 'numeric = ["age", "treat"]', "study.column_role", 0),
    ("outcomes =", 'outcomes = { work = ["w1", "id"] }', "study.column_role", 0),
    ("outcomes =", "outcomes = {}", "study.empty", 0),
    ("file =", 'file = "../nsw.csv"', "study.path_outside", 0),
    ('name = "work"', 'name = "wrk"', "study.not_allowed", 0),
    ("kind =", 'kind = "state"\nsource = "state:benefit" #^', "study.source_in_table", 0),
    ("[covariates]", "[time]\nhorizon = 2 #^\n[covariates]", "study.horizon_table", 0),
    ("[covariates]", "[eligibility]\nage = [18, 64]\n[covariates]", "study.eligibility_in_table", 0),
    ("method =", 'method = "matching"\n[[analysis]]\nid = "main" #^\nmethod = "experiment"', "study.duplicate", 0),
]


@pytest.mark.parametrize(
    ("old", "new", "code", "line"), TABLE_FAULTS, ids=[f"{row[2]}:{row[1][:40]}" for row in TABLE_FAULTS]
)
def test_one_fault_in_a_table_study(old, new, code, line):
    text, at = edit(TABLE, old, new)
    at = line_of(text, line) if line else at
    (found,) = faults(text)
    assert (found.code, found.place) == (code, f"study.toml line {at}")


def test_matching_needs_covariates():
    text = TABLE.replace('numeric = ["age"]', "").replace('method = "experiment"', 'method = "matching"')
    (found,) = faults(text)
    assert (found.code, found.place) == ("study.no_covariates", f"study.toml line {line_of(text, '[[analysis]]')}")


def test_age_is_not_a_category():
    text = GOOD.replace('numeric = ["age", ', "numeric = [").replace(
        'categorical = ["sex"', 'categorical = ["age", "sex"'
    )
    (found,) = faults(text)
    assert (found.code, found.place) == ("study.age_numeric", f"study.toml line {line_of(text, 'categorical')}")


def test_months_only_need_an_order_within_the_month():
    text = GOOD.replace("%d-%m-%Y", "%m-%Y")
    (found,) = faults(text)
    assert (found.code, found.place) == ("study.no_days", f"study.toml line {line_of(text, 'within_month')}")
    parse(text.replace('within_month = "dates"', 'within_month = "exit_first"'))


def test_one_source_of_data():
    both = TABLE.replace("[table]", "[data]\nwindow = { first = 2015-01-01, last = 2023-12-31 }\n[table]")
    assert {"study.data_and_table", "study.missing_key"} <= {fault.code for fault in faults(both)}
    neither = re.sub(r"\[table\].*?\[treatment\]", "[time]\nhorizon = 3\n[treatment]", TABLE, flags=re.DOTALL)
    (found,) = faults(neither)
    assert (found.code, found.place) == ("study.no_data", "study.toml line 1")


def test_the_nearest_key_is_named():
    text, line = edit(GOOD, "horizon =", "horizn = 36")
    missing, unknown = sorted(faults(text), key=lambda fault: fault.code)
    assert missing.code == "study.missing_key" and missing.place == f"study.toml line {line_of(text, '[time]')}"
    assert unknown.code == "study.unknown_key" and unknown.place == f"study.toml line {line}"
    assert unknown.params["nearest"] == "horizon" and unknown.params["where"] == "[time]"
    assert "horizn" in unknown.text("nl") and "horizon" in unknown.text("nl")


def test_the_nearest_value_is_named():
    text, _ = edit(GOOD, "instrument =", 'instrument = "trainng"')
    (found,) = faults(text)
    assert found.params["nearest"] == "training" and "training, coaching" in found.remedy("en")
    text, _ = edit(GOOD, "source =", 'source = "exit:wrk"')
    assert faults(text)[0].params["nearest"] == "exit:work"


def test_all_faults_at_once_in_the_order_of_the_file():
    text = GOOD
    for old, new in [
        ("seed =", "sed = 1"),
        ("window =", "window = { first = 2015-01-01, last = 2016-12-31 }"),
        ("file =", 'file = "/etc/personen.csv"'),
        ("horizon =", "horizon = 48"),
        ("age =", 'age = ["18", 64]'),
        ("instrument =", 'instrument = "trainng"'),
        ("numeric =", 'numeric = ["age", "distnce"]'),
        ("smd_fail =", 'smd_fail = "0.25"'),
        ("ratio =", "ratio = 1"),
    ]:
        text, _ = edit(text, old, new)
    found = faults(text)
    assert [fault.code for fault in found] == [
        "study.missing_key",  # seed, at line 1
        "study.unknown_key",
        "study.path_outside",
        "study.horizon_window",
        "study.wrong_type.integer",
        "study.not_allowed",
        "study.unknown_column",
        "study.wrong_type.number",
    ]
    lines = [int(fault.place.rpartition(" ")[2]) for fault in found]
    assert lines == sorted(lines)
    with pytest.raises(StudyError) as caught:
        parse(text)
    assert len(caught.value.text("nl").splitlines()) == len(found)


def test_cross_checks_run_beside_faulty_neighbours():
    text, _ = edit(GOOD, "columns.sex", 'columns.sex = "geslacht"\ncolum = "x"')  # an unknown key in the same table
    text, at = edit(text, "categorical =", 'categorical = ["sex", "educaton"]')
    assert [(fault.code, fault.place.rpartition(" ")[2]) for fault in faults(text)] == [
        ("study.unknown_key", str(line_of(text, "colum ="))),
        ("study.unknown_column", str(at)),
    ]


def test_messages_name_the_file_without_its_folder(tmp_path):
    text, _ = edit(GOOD, "seed =", "sed = 1")
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(StudyError) as caught:
        read(path)
    assert str(tmp_path) not in str(caught.value)
    assert all(fault.place.startswith("mine.toml line ") for fault in _checked(caught.value))


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (None, "study.file_missing", "study.toml"),
        (b"", "study.file_empty", "study.toml"),
        (b"\n  \n", "study.file_empty", "study.toml"),
        ('seed = 1\ntitle = { nl = "Café" }\n'.encode("cp1252"), "study.not_utf8", "study.toml line 2"),
        (b"seed = 1\ntitle = {", "study.syntax", "study.toml line 2"),
        (b'seed = 1\ntitle = """\n\n', "study.syntax", "study.toml line 2"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, code, place):
    path = tmp_path / "study.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        read(path)
    (found,) = _checked(caught.value)
    assert (found.code, found.place) == (code, place)


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(StudyError) as caught:
        read(tmp_path)
    assert caught.value.faults[0].code == "study.file_missing"
    (tmp_path / "study.toml").mkdir()
    with pytest.raises(StudyError) as caught:
        read(tmp_path / "study.toml" / ".." / "study.toml")
    assert _checked(caught.value)


def test_a_study_of_one_key_reports_what_is_missing():
    found = faults("schema = 1\n")
    assert {fault.params["key"] for fault in found if fault.code == "study.missing_key"} == {
        "seed", "title", "time", "treatment", "outcome", "analysis",
    }  # fmt: skip
    assert found[-1].code == "study.no_data"


def test_every_code_in_the_source_has_its_sentences_and_every_sentence_a_code():
    folder = Path(translate.__file__).parent
    source = "\n".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    written = set(re.findall(r'"(study\.[a-z_0-9]+)"', source)) - {"study.toml"}
    keys = {key.removeprefix("fault.")[:-4] for key in catalogue("en") if re.fullmatch(r"fault\.study\..*\.say", key)}
    assert written == {key for key in keys if key.count(".") == 1}
    assert {key for key in keys if key.count(".") == 2} == {
        *(f"study.wrong_type.{kind}" for kind in (*translate._WRONG_TYPE.values(), "tables")),
        *(f"study.out_of_range.{kind}" for kind, _ in translate._BOUNDS.values()),
    }


def test_a_file_that_may_not_be_opened(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(StudyError) as caught:
        read(tmp_path / "study.toml")
    assert _checked(caught.value)[0].code == "study.file_unreadable"
