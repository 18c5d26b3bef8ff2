"""Names of categories that few people have are not shown; those that the study file names are."""

from __future__ import annotations

import numpy as np
import pytest
from register_example import TABLE, write, write_table
from report_example import example_document

from evalkit import register, sample
from evalkit.design import factor
from evalkit.report.view import View
from evalkit.sample.levels import names, shown
from evalkit.text import RARE


def test_a_value_of_few_people_is_a_number(tmp_path):
    study = write(tmp_path)
    values = ["m"] * 10 + ["Jansen"] * 9 + ["a"] * 3 + [None]
    made = shown(study, factor("sex", values))
    assert made.levels == (f"{RARE}1", f"{RARE}2", "m", "missing")  # in the order of the values: Jansen, a, m
    assert made.codes.tolist() == factor("sex", values).codes.tolist()


def test_values_that_the_study_file_names_stay(tmp_path):
    study = write(tmp_path)
    study = study.model_copy(update={"labels": {"nl": {"sex:v": "Vrouw", "x": "onbekend"}}})
    assert names(study, "sex", ("missing", "unknown", "v", "x", "z"), np.ones(5)) == (
        "missing", "unknown", "v", "x", f"{RARE}1",
    )  # fmt: skip
    assert names(study, "education", ("v",), [1]) == (f"{RARE}1",)
    persons = study.data.persons.model_copy(update={"codes": {"sex": {"woman": ("v",)}}})
    coded = study.model_copy(update={"data": study.data.model_copy(update={"persons": persons})})
    assert names(coded, "sex", ("woman", "z"), [1, 1]) == ("woman", f"{RARE}1")


def test_the_smallest_number_is_that_of_the_study(tmp_path):
    study = write(tmp_path)
    loose = study.disclosure.model_copy(update={"minimum": 2, "profile": "open"})
    assert names(study.model_copy(update={"disclosure": loose}), "sex", ("a", "b"), [1, 2]) == (f"{RARE}1", "b")


def test_ready_tables_too(tmp_path):
    study = write_table(tmp_path, TABLE)
    cut = sample.from_table(study, register.read_table(study))
    assert cut.people.factors[0].levels == (f"{RARE}1", f"{RARE}2", "missing")


@pytest.mark.parametrize(("lang", "words"), [("nl", "zeldzame waarde 2"), ("en", "rare value 2")])
def test_the_report_has_words_for_it(lang, words):
    view = View(example_document(), lang)
    assert view.level("sex", f"{RARE}2") == words
    assert words in view.pair(f"sex:{RARE}2")
