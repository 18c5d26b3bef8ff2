"""The study file: what a good one gives, where keys stand, what the models and pages agree on."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import string
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from evalkit import study as st
from evalkit.errors import StudyError
from evalkit.study.lines import Lines
from evalkit.study.model import Protocol
from evalkit.study.rules import whole_months
from evalkit.text import catalogue

ROOT = Path(__file__).parent.parent

TABLE = """\
seed = 1
languages = ["en"]
title = { en = "Did it work?" }
[table]
file = "nsw.csv"
unit = "id"
treatment = "treat"
outcomes = { earnings = ["re78"], work = ["w1", "w2", "w3"] }
[treatment]
instrument = "nsw"
versus = "never"
design = "randomised"
[[outcome]]
name = "work"
kind = "state"
primary = true
[[outcome]]
name = "earnings"
kind = "flow"
unit = "dollar"
[covariates]
numeric = ["age", "re75"]
[[subgroup]]
name = "age"
cuts = [25]
[[analysis]]
id = "main"
method = "experiment"
"""


def test_the_template_gives_the_study_it_says():
    study = st.parse(st.template("en"), "folder/study.toml")
    assert study.schema_version == 1 and study.seed == 20260101 and study.languages == ("nl", "en")
    assert study.data is not None and study.table is None
    assert study.data.window == st.Window(first=dt.date(2015, 1, 1), last=dt.date(2023, 12, 31))
    assert study.data.benefits.codes == {"reason": {"work": ("werk",), "education": ("opleiding",), "other": ("*",)}}
    assert study.data.jobs is None and study.costs == {}
    assert study.time.horizon == 36 and study.eligibility.age == (18, 64)
    assert [outcome.name for outcome in study.outcomes] == ["left_to_work", "on_benefit"]
    assert study.primary.name == "left_to_work"
    (main,) = study.analyses
    assert main.method == "matching"
    assert main.settings["exact"] == ("elapsed", "quarter") and main.settings["caliper"]["width"] == 0.2
    assert study.labels["nl"]["sex:vrouw"] == "Vrouwen"
    assert study.folder == Path("folder/data")


def test_both_templates_hold_the_same_study():
    dutch, english = st.template("nl"), st.template("en")
    assert tomllib.loads(dutch) == tomllib.loads(english)
    assert st.parse(dutch).protocol() == st.parse(english).protocol()


def test_read_keeps_text_path_and_checksum(tmp_path):
    path = tmp_path / "study.toml"
    content = st.template("nl").encode()
    path.write_bytes(content)
    study = st.read(path)
    assert study.path == path and study.text.encode() == content
    assert study.sha256 == hashlib.sha256(content).hexdigest()
    assert st.read(tmp_path) == study
    assert st.parse(study.text, study.path) == study and hash(st.read(path)) == hash(study)
    path.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert st.read(path).protocol() == study.protocol()


def test_a_study_is_frozen():
    study = st.parse(TABLE)
    with pytest.raises(ValidationError):
        study.seed = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        study.time.horizon = 2  # type: ignore[misc]
    assert isinstance(study.outcomes, tuple)


def test_a_ready_table_needs_no_time_and_no_eligibility():
    study = st.parse(TABLE, "here/study.toml")
    assert study.table is not None and study.data is None
    assert study.time.horizon == 3  # the longest list of outcome columns
    assert study.folder == Path("here")
    assert st.parse(TABLE + '[time]\nfollow_up = "available"\n').time.horizon == 3


def test_protocol_is_plain_json():
    import json

    assert json.loads(json.dumps(st.parse(TABLE).protocol())) == st.parse(TABLE).protocol()
    assert set(st.parse(TABLE).protocol()) == set(Protocol.model_fields)


def test_importing_the_study_is_light():
    code = (
        "import sys, evalkit.study; print([m for m in ('pandas','numpy','narwhals','statsmodels') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("first", "last", "months"),
    [
        ("2015-01-01", "2015-01-31", 1),
        ("2015-01-01", "2015-01-30", 0),
        ("2015-01-01", "2023-12-31", 108),
        ("2015-01-31", "2015-02-27", 1),  # 31 January + 1 month = 28 February, the day after the last
        ("2015-01-31", "2015-02-26", 0),
        ("2015-01-15", "2016-01-13", 11),
    ],
)
def test_whole_months(first, last, months):
    assert whole_months(dt.date.fromisoformat(first), dt.date.fromisoformat(last)) == months


# --- lines -------------------------------------------------------------------------------------------------------

TRICKY = '''\
# a = 1
top = "# not a comment"  # [no.table]
"quoted key" = 'x = 1'
site."example.com".name = 1
text = """
[fake]
key = 2 \\""" still inside
""""
raw = \'\'\'
[[fake]] = ' '
\'\'\'
list = [
  1, # one
  [2,
   3],

  "]",
  { a = 1, b = { c = [4] } },
]
when = 1979-05-27 07:32:00
empty = {}
[a.b]
c.d = 1
c.e = { f = "}", g = [ "," ], 'h' = 2 }
[ "x.y" . z ]
k = ""
[[row]]
n = 1
[row.sub]
m = 1
[[row.item]]
p = 1
[[row.item]]
p = 2
[[row]]

n = 2
[[row.item]]
p = 3
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 22),
        (("top",), 2),
        (("quoted key",), 3),
        (("site", "example.com", "name"), 4),
        (("text",), 5),
        (("raw",), 9),
        (("list",), 12),
        (("list", 0), 13),
        (("list", 1), 14),
        (("list", 1, 1), 15),
        (("list", 2), 17),
        (("list", 3, "b", "c", 0), 18),
        (("when",), 20),
        (("a", "b", "c", "d"), 23),
        (("a", "b", "c", "e", "g", 0), 24),
        (("a", "b", "c", "e", "h"), 24),
        (("x.y", "z", "k"), 26),
        (("row",), 27),
        (("row", 0, "n"), 28),
        (("row", 0, "sub", "m"), 30),
        (("row", 0, "item", 0, "p"), 32),
        (("row", 0, "item", 1, "p"), 34),
        (("row", 1), 35),
        (("row", 1, "n"), 37),
        (("row", 1, "item", 0, "p"), 39),
        (("row", 1, "missing"), 35),
        (("a", "b", "missing", "deeper"), 22),
        (("nowhere",), 1),
        ((), 1),
    ],
)
def test_lines_of_tricky_toml(path, line):
    tomllib.loads(TRICKY)
    assert Lines(TRICKY).find(path) == line


@pytest.mark.parametrize("text", [TRICKY, TABLE, *(st.template(lang) for lang in ("nl", "en"))])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_key_has_a_line(text, ending):
    text = text.replace("\n", ending)
    lines = Lines(text)._lines

    def paths(value, path=()):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key)
            if isinstance(item, dict | list):
                yield from paths(item, (*path, key))

    expected = set(paths(tomllib.loads(text)))
    assert expected == set(lines)
    source = text.splitlines()
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in source[line - 1]


# --- a method's own settings ---------------------------------------------------------------------------------------


class Caliper(st.Frozen):
    width: float = Field(gt=0)
    unit: str = "sd_linear"


class Settings(st.Frozen):
    propensity: str = "pooled"
    exact: tuple[str, ...] = ()
    ratio: int = Field(default=1, ge=1)
    caliper: Caliper | float | None = None
    replace: bool = True

    @model_validator(mode="after")
    def _ratio(self):
        if self.ratio > 5:
            raise PydanticCustomError("study.not_ascending", "too many", {"key": "ratio"})
        return self


def test_bind_gives_the_methods_settings():
    study = st.parse(st.template("en"))
    settings = st.bind(Settings, study.analyses[0].settings, study, 0)
    assert settings.exact == ("elapsed", "quarter") and settings.caliper == Caliper(width=0.2)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ratio = 3 ", "ration = 1 ", [("study.unknown_key", "ration")]),
        ("ratio = 3 ", "ratio = 0 ", [("study.out_of_range.at_least", "ratio")]),
        ("ratio = 3 ", 'ratio = "1" ', [("study.wrong_type.integer", "ratio")]),
        ("ratio = 3 ", "ratio = 9 ", [("study.not_ascending", "[[analysis]]")]),
        ("width = 0.2", "widht = 0.2", [("study.missing_key", "caliper"), ("study.unknown_key", "caliper")]),
        ('["elapsed", "quarter"]', '["elapsed", 2]', [("study.wrong_type.text", "exact")]),
        ("replace = true", "replace = 1", [("study.wrong_type.boolean", "replace")]),
    ],
)
def test_bind_reports_with_lines(old, new, expected):
    text = st.template("en").replace(old, new)
    study = st.parse(text)
    with pytest.raises(StudyError) as caught:
        st.bind(Settings, study.analyses[0].settings, study, 0)
    lines = text.splitlines()
    after = lines.index("[[analysis]]")
    found = []
    for fault in caught.value.faults:
        line = int(fault.place.removeprefix("study.toml line "))
        assert line > after
        found.append((fault.code, next(key for _, key in expected if lines[line - 1].startswith(key))))
        assert fault.text("nl") != fault.text("en")
    assert sorted(found) == sorted(expected)


def test_bind_refuses_unknown_keys_of_a_lenient_model():
    class Lenient(BaseModel):
        propensity: str = "pooled"

    study = st.parse(st.template("en"))
    with pytest.raises(StudyError) as caught:
        st.bind(Lenient, study.analyses[0].settings, study, 0)
    assert {fault.code for fault in caught.value.faults} == {"study.unknown_key"}
    assert len(caught.value.faults) == 4


# --- texts and pages -------------------------------------------------------------------------------------------------


def _sentences(lang):
    text = (ROOT / "evalkit" / "text" / lang / "study.toml").read_text("utf-8")
    keys = {key for key in catalogue(lang) if key.startswith("fault.study.")}
    assert len(keys) == text.count("say = ") + text.count("fix = ")
    return {key: catalogue(lang)[key] for key in keys}


def _placeholders(sentence):
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def test_both_languages_say_the_same_things():
    dutch, english = _sentences("nl"), _sentences("en")
    assert dutch.keys() == english.keys()
    for key in dutch:
        assert _placeholders(dutch[key]) == _placeholders(english[key]), key
        assert key.endswith((".say", ".fix"))
        assert key.removesuffix(".say").removesuffix(".fix") + ".say" in dutch
        assert key.removesuffix(".say").removesuffix(".fix") + ".fix" in dutch


def _models(model, seen):
    """All models a study is made of."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if model not in seen:
            seen.append(model)
            for field in model.model_fields.values():
                _models(field.annotation, seen)
    for part in get_args(model):
        _models(part, seen)
    return seen


@pytest.mark.parametrize("model", _models(Protocol, []), ids=lambda model: model.__name__)
def test_every_key_is_on_the_page(model):
    page = (ROOT / "docs" / "study-file.md").read_text("utf-8")
    section = re.search(rf"<!-- {model.__name__} -->(.*?)(?=<!-- |\Z)", page, re.DOTALL)
    assert section, f"no section for {model.__name__}"
    for name, field in model.model_fields.items():
        if model.__name__ == "AnalysisSpec" and name == "settings":
            continue  # the remaining keys; each method has its own page
        row = re.search(rf"^\| `{field.alias or name}` \|.*$", section[1], re.MULTILINE)
        assert row, f"{model.__name__}.{name} is not described"
        assert len(row[0].replace(r"\|", "").split("|")) == 6  # key, meaning, type and values, default
        assert ("required" in row[0]) == field.is_required(), row[0]


def test_the_example_on_the_page_is_a_study():
    page = (ROOT / "docs" / "study-file.md").read_text("utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        if "seed" in example:
            st.parse(example)
        else:
            tomllib.loads(example)


def test_bind_translates_what_no_study_key_can_do_wrong():
    class Odd(st.Frozen):
        propensity: float = Field(default=0.5, lt=1)
        exact: tuple[str, ...] = ()
        ratio: int = Field(default=1, lt=1)
        caliper: dict[str, float | str]
        replace: bool = Field(default=True)

        @field_validator("exact")
        @classmethod
        def _fine(cls, value):
            raise ValueError("no exact matching here")

    study = st.parse(st.template("en"))
    with pytest.raises(StudyError) as caught:
        st.bind(Odd, study.analyses[0].settings, study, 0)
    found = caught.value.faults
    assert [fault.code for fault in found] == ["study.wrong_type.number", "study.invalid", "study.out_of_range.below"]
    assert all(fault.text("nl") and fault.text("en") for fault in found)
