"""The report: words that depend on the study (comparison, table, periods, lot) and numbers with their units."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from report_example import (
    _month,
    chart,
    example_document,
    experiment_document,
    finding,
    suppressed_document,
    table,
    withheld_document,
)
from test_report import Page

from evalkit.report import figures, people, render
from evalkit.report.sections import sections
from evalkit.report.view import View

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("figures_once")]


def text(document: dict[str, Any], lang: str = "nl") -> str:
    return Page(render(document, lang)).text


def section(document: dict[str, Any], name: str, lang: str = "nl") -> str:
    page = render(document, lang)
    return Page(page[page.index(f'<section id="{name}"') :].partition("</section>")[0] + "</section>").text


def twin(document: dict[str, Any], identity: str = "second") -> dict[str, Any]:
    """The primary profile once more, by another analysis."""
    found = copy.deepcopy(document["profiles"][0])
    found["labels"]["analysis"] = identity
    document["profiles"].append(found)
    document["gates"].append(document["gates"][0] | {"analysis": identity})
    return found


def periods_document() -> dict[str, Any]:
    """A matched table with five measured years."""
    document = experiment_document()
    found = document["profiles"][2]
    found["labels"]["period_months"] = "12"
    found["months"] = [_month(k, 500.0 * k - 900, 300.0, 4000.0, 185) for k in range(1, 6)]
    found["lock_in"] = None
    document["profiles"], document["gates"] = [found], document["gates"][1:]
    document["exhibits"] = []
    return document


# -- other calculations ---------------------------------------------------------------------------------------------


def test_another_analysis_that_says_something_else_is_named_in_the_answer() -> None:
    document = example_document()
    twin(document)
    assert "geeft een ander beeld" not in text(document)
    document["profiles"][-1]["months"][-1].update(band_low=-0.02)
    document["study"]["protocol"]["labels"]["nl"]["second"] = "Ruime vergelijking"
    said = section(document, "answer")
    assert "Een andere berekening (‘Ruime vergelijking’) geeft een ander beeld: daar is het niet zeker" in said
    document["profiles"][-1]["months"][-1].update(estimate=-0.07, band_low=-0.1, band_high=-0.04)
    assert "daar is het effect ongunstig (−7,0 procentpunt" in section(document, "answer")


def test_another_analysis_that_was_rejected_is_named() -> None:
    document = example_document()
    for row in twin(document)["months"]:
        row.update(dict.fromkeys([key for key in row if key not in ("month", "status")]), status="withheld")
    document["gates"][-1]["verdict"] = "fail"
    assert "Een andere berekening (‘second’) is afgekeurd en daarom niet getoond." in section(document, "answer")
    document = withheld_document()
    for row, good in zip(twin(document)["months"], example_document()["profiles"][0]["months"], strict=True):
        row.update(good)
    assert "Een andere berekening van dezelfde uitkomst is wel getoond" in section(document, "answer")


def test_experiment_says_the_effect_without_adjustment_too() -> None:
    document = experiment_document()
    document["profiles"] = [document["profiles"][1], document["profiles"][0]]
    assert "Het verschil is +$ 1.676" in text(document)
    assert "Zonder correctie voor kenmerken is het verschil +$ 1.794 (onzekerheidsmarge: +$ 479 tot" in text(document)
    assert "Without adjustment for characteristics it is +$1,794" in text(document, "en")


def test_analyses_go_by_their_label_or_their_own_id() -> None:
    document = example_document()
    twin(document, "one_neighbour")
    assert "(matching) (" not in text(document) and "one neighbour" in text(document)
    document["study"]["protocol"]["labels"]["nl"]["one_neighbour"] = "Eén buur"
    assert "Eén buur" in text(document) and "eén buur" not in text(document)


def test_early_month_is_set_against_the_last() -> None:
    document = example_document()
    document["profiles"][0]["months"][-1].update(band_low=-0.01)
    assert "Na 12 maanden was er ook geen duidelijk verschil" in text(document)
    document["profiles"][0]["months"][11].update(estimate=0.05, band_low=0.01, band_high=0.09)
    assert "Na 12 maanden was het effect wel gunstig" in text(document)


def test_break_even_with_both_bounds_in_whole_months() -> None:
    document = example_document()
    measure = next(m for m in document["profiles"][0]["summary"] if m["measure"] == "break_even_month")
    measure.update(estimate=22.0, set_low=17.0, set_high=30.0)
    assert "In maand 22 is de achterstand ingehaald (marge: maand 17 tot 30)." in text(document)


# -- who the starters are set beside --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versus", "nl", "en"),
    [
        ("wait", "nog niet begonnen (schatting)", "not yet started (estimate)"),
        ("never", "zonder scholing (schatting)", "without training (estimate)"),
        ("coaching", "met coaching (schatting)", "with coaching (estimate)"),
    ],
)
def test_the_comparison_is_called_what_it_is(versus: str, nl: str, en: str) -> None:
    document = example_document()
    for found in document["profiles"]:
        found["estimand"]["versus"] = versus
    assert nl in text(document) and en in text(document, "en")
    assert ("zonder scholing" in text(document).lower()) == (versus == "never")
    assert ("‘Zonder’" in text(document)) == (versus == "never")


def test_waiting_is_never_called_without() -> None:
    for lang, word in (("nl", "zonder"), ("en", "without")):
        page = Page(render(example_document(), lang))
        heads = " ".join(re.findall(r"<th scope=\"col\"[^>]*>([^<]*)", render(example_document(), lang)))
        assert word not in heads.lower()
        assert not any(word in (image["alt"] or "") for image in page.all("img"))


# -- tables and periods ---------------------------------------------------------------------------------------------


def test_table_study_is_spared_what_belongs_to_registers() -> None:
    document = experiment_document()
    counts = [("what.starters", 185), ("what.comparison_entries_used", 125), ("what.comparison_persons_used", 125)]
    columns = [
        {"key": key, "label": key, "role": role, "support": "", "parent": "", "decimals": 0}
        for key, role in (("what", "key"), ("value", "count"))
    ]
    document["exhibits"].append(table("matching", columns, counts) | {"analysis": "matched"})
    follow_up = finding("follow_up_unequal", "pass", 0.0, 0.01, treated=1.0, comparison=1.0, month=1)
    document["findings"].append(follow_up | {"analysis": "matched", "scope": "earnings"})
    said = text(document)
    assert "Deelnemers die meetellen" in said and "ersoonsmaanden" not in said
    assert "de uitkomst is bekend van 100 % van de deelnemers" in said and "tot en met maand 1" not in said
    assert "Maanden sinds de start" not in said and "even lang in de uitkering" not in said
    assert not re.search(r"time\.clock|time\.within_month|eligibility\.", said) and "time.horizon" in said
    assert "Eerst achterstand, later winst?" not in said


def test_periods_are_counted_as_periods() -> None:
    assert "in period 5 (12 months each)" in text(periods_document(), "en")
    for lang in ("nl", "en"):
        page = Page(render(periods_document(), lang))
        said = page.text + " ".join(image["alt"] or "" for image in page.all("img"))
        assert not re.search(r"[Mm](aand|onth)\b(?! k)", said)
        assert "lock-in" not in said and "achterstand" not in said.lower()


# -- lot ------------------------------------------------------------------------------------------------------------


def test_remedies_after_a_draw_by_lot() -> None:
    document = experiment_document()
    document["profiles"] = document["profiles"][:2]
    for code in ("balance", "balance_significant"):
        found = finding(code, "warn", 0.28, 0.25, variable="sex:man", smd=0.28, p=0.02)
        document["findings"].append(found | {"analysis": "experiment"})
    for lang in ("nl", "en"):
        trust = section(document, "trust", lang)
        assert "caliper" not in trust and "exact)" not in trust
    said = section(document, "answer")
    assert "Op ‘Geslacht: Mannen’ verschillen de groepen meer dan toeval verklaart" in said
    assert "Het grootste verschil" not in said  # the same difference is not named twice


def test_balance_of_a_lot_stands_once() -> None:
    document = experiment_document()
    for row in document["exhibits"][0]["rows"]:
        row.update({key.replace("before", "after"): row[key] for key in list(row) if key.endswith("_before")})
    alike = section(document, "alike")
    assert "achteraf" not in alike and "Gestandaardiseerd verschil" in alike
    assert "Vergelijking achteraf" in section(example_document(), "alike")


# -- figures --------------------------------------------------------------------------------------------------------


def test_love_plot_has_one_of_two_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["age", "sex:man", "sex:vrouw", "education:laag", "education:midden", "education:hoog"]
    document = example_document()
    values = [0.3, 0.1, 0.1, 0.2, 0.2, 0.1]
    document["exhibits"][1] = chart("love", "interval", names, "", "", before=values, after=values)
    drawn: list[Any] = []
    real = figures.dots
    monkeypatch.setattr(people.figures, "dots", lambda *args: drawn.append(args) or real(*args))
    render(document, "nl")
    assert [label.partition(": ")[2] for label in drawn[0][0]] == ["", "Vrouwen", "laag", "midden", "hoog"]
    assert "Geslacht: Mannen" in section(document, "alike")  # the balance table has both


# -- words ----------------------------------------------------------------------------------------------------------


def test_labels_keep_their_capitals_where_they_may_be_names() -> None:
    document = example_document()
    document["study"]["protocol"]["covariates"]["categorical"] = ["hisp", "household_type"]
    document["study"]["protocol"]["labels"]["en"] |= {"hisp": "Hispanic", "age": "Age", "hisp:1": "Yes"}
    document["findings"] = [finding("balance", "warn", 0.2, 0.25, variable="hisp:1", smd=0.2)]
    said = text(document, "en")
    assert "Age, Hispanic and household type" in said and "‘Hispanic: Yes’" in said and "hispanic" not in said
    assert "‘left benefit for work’" in said  # the outcome reads as a common word


def test_glossary_lists_what_occurs() -> None:
    assert "Achterstand (lock-in)" in section(example_document(), "glossary")
    said = section(experiment_document(), "glossary", "en")
    assert "Margin of uncertainty" in said and "Comparison group" in said
    assert not any(word in said for word in ("Percentage point", "lock-in", "Made up", "all months", "Overlap"))


def test_numbers_with_their_units() -> None:
    nl, en = View(example_document(), "nl"), View(example_document(), "en")
    assert en.amount(6175.2, "dollar") == "$6,175" and en.amount(-1583, "euro", True) == "−€1,583"
    assert nl.amount(6175.2, "dollar") == "$\u00a06.175"
    assert nl.percent(1.0) == "100\u00a0%" and nl.percent(0.973) == "97,3\u00a0%" and en.percent(0.8) == "80%"
    assert en.percent(0.9999) == "100.0%"  # not quite everyone
    assert en.range(254, 2912, "dollar") == "+$254 to +$2,912"
    assert en.range(-0.02, 0.05, "fraction") == "−2.0 to +5.0\u00a0percentage points"
    assert "nodig is 80 %" in text(withheld_document())


def test_a_suppressed_share_is_not_a_finding() -> None:
    document = example_document()
    document["findings"] = [finding("later_start", "info", None, None, share=None, horizon=36)]
    assert "begint" not in section(document, "trust")
    document["findings"] = [finding("support", "warn", None, 0.8, share=None, matched=None, starters=None)]
    assert "Voor – van de starters" in section(document, "trust")


# -- the study file changed -----------------------------------------------------------------------------------------


def test_change_of_the_study_file_is_shown() -> None:
    document = example_document()
    study = document["study"]
    document["first_run"] = {"created": "2025-12-24T10:00:00Z", "sha256": "aa" * 32, "text": study["text"]}
    assert "Wat is er veranderd" not in text(document)
    document["first_run"]["text"] = study["text"].replace("20260101", "1") + "# <script>\n"
    for found in (document, withheld_document() | {"first_run": document["first_run"]}):
        said = text(found)
        assert "Het studiebestand is veranderd nadat de eerste uitkomsten bekend waren" in said
        assert "De eerste uitkomsten waren bekend op 24-12-2025." in said
        assert "-seed = 1 +seed = 20260101" in said and "-# <script>" in said
        assert "<script" not in render(found, "nl")
    assert "What has changed since the first time" in text(document, "en")


def test_no_first_run_is_no_change() -> None:
    for first in ({}, {"first_run": None}):
        assert "Wat is er veranderd" not in text(example_document() | first)


# -- all examples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["nl", "en"])
def test_answers_are_free_of_stiff_and_double_words(lang: str) -> None:
    for document in (example_document(), suppressed_document(), experiment_document(), periods_document()):
        answer = " ".join(str(block) for block in sections(View(document, lang))[0].blocks)
        assert not re.search(r"\b(\w+) \1\b", answer)
        assert " ," not in answer and ".." not in answer
