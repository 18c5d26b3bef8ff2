"""The report: what it says, how it is built, and what it must never hold."""

from __future__ import annotations

import base64
import copy
import re
import string
import subprocess
import sys
import time
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_example import (
    difference,
    example_document,
    experiment_document,
    finding,
    shown_anyway_document,
    suppressed_document,
    withheld_document,
)

import evalkit.text
from evalkit.report import render, write
from evalkit.report.view import View, inner

DOCUMENTS = {
    "example": example_document,
    "withheld": withheld_document,
    "shown_anyway": shown_anyway_document,
    "suppressed": suppressed_document,
    "experiment": experiment_document,
}
words_only = pytest.mark.usefixtures("figures_once")
"""For tests that change a document and read its words; all others draw every figure."""

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements with their attributes, headings in order, and the visible text."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


_PAGES: dict[tuple[str, str], str] = {}


def html(name: str, lang: str = "nl") -> str:
    if (name, lang) not in _PAGES:
        _PAGES[name, lang] = render(DOCUMENTS[name](), lang)
    return _PAGES[name, lang]


def words(name: str, lang: str = "nl") -> str:
    return Page(html(name, lang)).text


# -- form -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["nl", "en"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_page_is_whole_and_reaches_for_nothing(name: str, lang: str) -> None:
    page = Page(html(name, lang))
    assert page.stack == []
    assert page.all("html")[0]["lang"] == lang
    assert not [tag for tag, _ in page.elements if tag in ("script", "link", "iframe", "object", "form")]
    for _, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/png;base64,"))
    assert "http://" not in html(name, lang) and "https://" not in html(name, lang)
    assert "url(" not in html(name, lang) and "@import" not in html(name, lang)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_headings_anchors_and_skip_link(name: str) -> None:
    page = Page(html(name))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False))
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = [link["href"] for link in page.all("a")]
    assert targets[0] == "#answer"
    assert {target.removeprefix("#") for target in targets if target} <= set(ids)


@pytest.mark.parametrize("lang", ["nl", "en"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_figures_have_words_and_numbers_and_tables_have_heads(name: str, lang: str) -> None:
    page = html(name, lang)
    parsed = Page(page)
    for image in parsed.all("img"):
        assert len(image["alt"] or "") > 30 and re.search(r"\d", image["alt"] or "")
    figures = re.findall(r"<figure>.*?</figure>", page, re.S)
    assert len(figures) == len(parsed.all("img"))
    assert all("<details>" in figure and "<table>" in figure for figure in figures)
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        assert re.match(r"<table>\s*<caption", table)
    assert all(cell.get("scope") in ("col", "row") for cell in parsed.all("th"))
    regions = [d for d in parsed.all("div") if d.get("class") == "scroll"]
    assert all(d.get("tabindex") == "0" and d.get("role") == "region" and d.get("aria-label") for d in regions)


def test_figures_carry_no_metadata() -> None:
    for image in Page(html("example")).all("img"):
        png = base64.b64decode((image["src"] or "").partition("base64,")[2])
        assert set(re.findall(rb"(?:tEXt|iTXt|zTXt|eXIf|tIME)", png)) == set()
        assert png.startswith(b"\x89PNG")


def test_same_document_same_bytes() -> None:
    for lang in ("nl", "en"):
        assert render(copy.deepcopy(example_document()), lang) == html("example", lang)


def test_does_not_touch_the_document() -> None:
    document = example_document()
    before = copy.deepcopy(document)
    render(document, "en")
    assert document == before


def test_fast_enough() -> None:
    document = example_document()
    assert len(document["profiles"]) == 8
    start = time.process_time()
    render(document, "nl")
    assert time.process_time() - start < 8


def test_planted_markup_is_text() -> None:
    document = example_document()
    evil = "<script>alert(1)</script>"
    labels = document["study"]["protocol"]["labels"]["nl"]
    for word in ("training", "left_to_work", "sex", "sex:man", "education:laag"):
        labels[word] = f"{evil} {word}"
    document["study"]["protocol"]["title"]["nl"] = evil
    document["study"]["text"] += f"# {evil}\n"
    document["gates"][0].update(verdict="fail", shown_anyway=evil)
    document["findings"].append(finding(evil, "warn", None, None))
    document["inputs"][0]["name"] = '"><img src=x onerror=alert(1)>.csv'
    page = render(document, "nl")
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;") > 5


def test_write_leaves_whole_files_only(tmp_path: Path) -> None:
    paths = write(example_document(), tmp_path)
    assert [path.name for path in paths] == ["report.nl.html", "report.en.html"]
    assert paths[0].read_text("utf-8") == html("example")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.en.html", "report.nl.html"]
    broken = example_document()
    broken["profiles"][0]["months"][0].pop("estimate")
    with pytest.raises(KeyError):
        write(broken, tmp_path)
    assert paths[0].read_text("utf-8") == html("example")
    one = example_document()
    one["study"]["protocol"]["languages"] = ["en"]
    (tmp_path / "one").mkdir()
    assert [path.name for path in write(one, tmp_path / "one")] == ["report.en.html"]


def test_imports_no_method() -> None:
    code = "import sys, evalkit.report; print(' '.join(m for m in sys.modules if m.startswith('evalkit.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[1] for name in loaded} <= {"files", "report", "text"}


# -- catalogue ------------------------------------------------------------------------------------------------------


def _sentences(lang: str) -> dict[str, str]:
    path = Path(evalkit.text.__file__).parent / lang / "report.toml"
    return evalkit.text._flatten(tomllib.loads(path.read_text("utf-8")))


def test_catalogues_agree() -> None:
    nl, en = _sentences("nl"), _sentences("en")
    assert list(nl) == list(en)
    for key in nl:
        fields = [sorted({(f, s) for _, f, s, _ in string.Formatter().parse(text) if f}) for text in (nl[key], en[key])]
        assert fields[0] == fields[1], key


def test_every_promised_sentence_exists() -> None:
    flow = """all_starts all_candidate_months no_benefit_at_start not_first_start stock earlier_spells age elapsed
        other_instrument start_before_window start_after_window follow_up missing_covariate missing_treatment
        missing_outcome no_starter_same_month outside_support unmatched_not_used left randomised_all"""
    findings = """balance balance_significant support follow_up_unequal small_month few_clusters bias_correction_reduced
        ps_separation composition_varying later_start shown_anyway same_month_convention"""
    notes = """estimand_wait estimand_never matching_method bias_corrected experiment_method within_month
        event_outcome_cumulated disclosure_rounding"""
    for section, names in (("flow", flow), ("finding", findings), ("note", notes)):
        assert all(f"{section}.{name}" in _sentences("nl") for name in names.split())


@pytest.mark.parametrize("lang", ["nl", "en"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_sentence_is_left_unfilled(name: str, lang: str) -> None:
    text = words(name, lang)
    assert not re.search(r"\{[a-z_]+(:[a-z]+)?\}|\bNone\b|\bnan\b", text)
    assert not re.search(r"\b(report|finding|note|flow|column|measure|exhibit|what|advice)\.[a-z_]{3,}", text)


# -- what it says ---------------------------------------------------------------------------------------------------


def test_answer_comes_first_and_reads_as_dutch() -> None:
    text = words("example")
    assert text.index("Scholing werkt na 36 maanden gunstig uit.") < text.rindex("Het effect in beeld")
    assert "na 36 maanden geldt dat voor 48 van elke 100 mensen met scholing, tegen 41 van elke 100 vergelijk" in text
    assert "Het verschil is +6,9 procentpunt (onzekerheidsmarge: +3,9 tot +9,9)." in text
    assert "Dat duurt 11 maanden, met als dieptepunt −3,2 procentpunt" in text
    assert "maar misschien ook na maand 36 of nooit" in text
    assert "Toeval alleen is geen goede verklaring" in text
    assert "motivatie of gezondheid" in text and "wachten, niet met nooit" in text
    assert "hoeveel van elke 100 mensen, na 12 maanden" in text


def test_english_answer() -> None:
    text = words("example", "en")
    assert "Training has a favourable effect after 36 months." in text
    assert "The difference is +6.9 percentage points (margin of uncertainty: +3.9 to +9.9)." in text


@words_only
def test_open_sets_are_worded() -> None:
    assert "vanaf maand 17; mogelijk later dan maand 36 of nooit" in words("example")
    document = example_document()
    measures = {m["measure"]: m for m in document["profiles"][0]["summary"]}
    measures["break_even_month"].update(estimate=None, set_low=37.0, set_high=None, status="not_reached")
    measures["lock_in_months"].update(estimate=36.0, set_low=9.0, set_high=None, status="not_reached")
    text = Page(render(document, "nl")).text
    assert "niet binnen 36 maanden later dan maand 36 of nooit" in text
    assert "9 tot meer dan 36 maanden" in text
    assert "Binnen 36 maanden is de achterstand niet ingehaald." in text


def test_cumulated_event_is_never_months_in_work() -> None:
    text = words("example")
    assert "Maanden eerder uit de uitkering, gemiddeld per deelnemer." in text
    assert "maanden met een uitkering (meer of minder)" in text.lower()
    assert "maanden in work" not in text and "months in work" not in words("example", "en").split("Notes on")[0]


@words_only
def test_lock_in_only_in_the_estimate() -> None:
    document = example_document()
    document["profiles"][0]["lock_in"] = {"exists": True, "established": False}
    text = Page(render(document, "nl")).text
    assert "lijken deelnemers achter te lopen" in text and "Die achterstand kan ook toeval zijn." in text


@words_only
def test_no_lock_in() -> None:
    document = example_document()
    first = document["profiles"][0]
    first["lock_in"] = {"exists": False, "established": False}
    for measure in first["summary"][:5]:
        measure.update(estimate=None, status="no_lock_in")
    text = Page(render(document, "nl")).text
    assert "In de eerste maanden is geen achterstand te zien." in text
    assert "geen achterstand in de schatting" in text


@words_only
def test_band_that_holds_zero_is_not_certain() -> None:
    document = example_document()
    document["profiles"][0]["months"][-1].update(band_low=-0.004, ci_low=0.01)
    text = Page(render(document, "nl")).text
    assert "Het is niet zeker of scholing na 36 maanden verschil maakt." in text
    assert "ook helemaal geen verschil past bij deze cijfers" in text


@words_only
def test_unfavourable_outcome_where_less_is_better() -> None:
    document = example_document()
    primary, other = document["profiles"][0], document["profiles"][4]
    primary["labels"]["primary"], other["labels"]["primary"] = "false", "true"
    for row in other["months"]:
        row.update(estimate=0.06, ci_low=0.04, ci_high=0.08, band_low=0.03, band_high=0.09)
    assert "Scholing werkt na 36 maanden ongunstig uit." in Page(render(document, "nl")).text


def test_withheld_says_why_and_what_next() -> None:
    text = words("withheld")
    assert "De uitkomst wordt niet getoond" in text
    assert "‘Opleiding: laag’ (gestandaardiseerd verschil 0,31; boven 0,10 is een aandachtspunt" in text
    assert "Maak de afstand (caliper) ruimer" in text
    assert "werkt na 36 maanden" not in text and "procentpunt hoger" not in text
    assert html("withheld").count("<img") == 3  # love, overlap and later starts: no effect is drawn
    assert "Eerst achterstand, later winst?" not in text


@words_only
def test_withheld_without_a_failed_gate_is_a_look_at_the_design() -> None:
    document = withheld_document()
    for gate in document["gates"]:
        gate["verdict"] = "pass"
    assert "alleen naar de opzet gekeken" in Page(render(document, "nl")).text


def test_shown_anyway_prints_the_reason() -> None:
    text = words("shown_anyway")
    assert "maar de vergelijking voldoet niet aan de eisen" in text
    assert "De gemeenteraad wil de cijfers zien" in text and "Neem geen besluit op grond van dit cijfer alleen." in text


@words_only
def test_suppressed_cells() -> None:
    text = words("suppressed")
    assert "<10 mensen" in text and "niet getoond: te weinig mensen" in text
    assert "Het laatste getoonde punt is maand 30" in text
    assert "De aantallen zijn klein: 52 mensen" in text
    assert "maar er is een kanttekening bij de vergelijking" in text
    document = suppressed_document()
    for profile in document["profiles"]:
        profile["lock_in"], profile["cumulated"] = None, []
        for measure in profile["summary"]:
            measure.update(estimate=None, std_error=None, set_low=None, set_high=None, status="suppressed")
    assert "niet getoond (te kleine aantallen)" in Page(render(document, "nl")).text


@words_only
def test_everything_suppressed() -> None:
    document = suppressed_document()
    for profile in document["profiles"]:
        for row in profile["months"]:
            row.update(dict.fromkeys([k for k in row if k not in ("month", "status")]), status="suppressed")
    assert "te weinig mensen" in Page(render(document, "nl")).text


def test_experiment_with_one_period() -> None:
    text = words("experiment")
    assert "Scholing werkt in de gemeten periode gunstig uit." in text
    assert "Het lot bepaalde wie in welke groep kwam." in text
    assert "+$ 1.794" in text and "verschil in gemiddelden" in text
    assert "Eerst achterstand, later winst?" not in text and "motivatie of gezondheid, kunnen" not in text
    assert html("experiment").count("<img") == 1


@words_only
def test_labels_fall_back_to_the_name() -> None:
    document = example_document()
    document["study"]["protocol"]["labels"] = {}
    text = Page(render(document, "en")).text
    assert "‘left to work’" in text and "Sex" in text and "vrouw" in text


@words_only
def test_unknown_codes_stand_as_they_are() -> None:
    document = example_document()
    document["findings"].append(finding("brand_new", "warn", None, None))
    document["exhibits"].append(
        {"analysis": "main", "type": "note", "key": "new_note", "params": {}, "severity": "info"}
    )
    document["flow"][1]["reason"] = "new_reason"
    document["checks"].append(
        {"code": "new_check", "severity": "warn", "table": "x", "count": 3, "share": 0.1, "params": {}}
    )
    text = Page(render(document, "nl")).text
    assert all(word in text for word in ("brand_new", "new_note", "New reason", "new check"))


@words_only
def test_subgroup_differences() -> None:
    text = words("example")
    assert (
        "Mannen min Vrouwen" in text and "nee, kan toeval zijn" in text and "Deze groepen zijn vooraf gekozen." in text
    )
    document = example_document()
    apart = difference("left_to_work")
    apart["months"][20].update(band_low=0.01, band_high=0.05)
    document["profiles"][3] = apart
    assert "ja, de groepen verschillen in minstens één maand" in Page(render(document, "nl")).text


@words_only
def test_two_analyses_stand_side_by_side() -> None:
    document = example_document()
    extra: list[dict[str, Any]] = copy.deepcopy(document["profiles"][:1])
    extra[0]["labels"]["variant"] = "exit_first"
    document["profiles"] += extra
    text = Page(render(document, "nl")).text
    assert "vertrek telt vóór begin" in text and "Berekeningen naast elkaar" in text


def test_reproduction_and_disclosure() -> None:
    text = words("example")
    assert "evalkit run study.toml" in text and "3f" * 32 in text and "seed 20260101" in text
    assert (
        "cijfers over minder dan 10 mensen zijn weggelaten" in text and "Gebruik het niet om over één persoon" in text
    )


def test_number_words() -> None:
    view = View(example_document(), "nl")
    assert view.amount(-1234.4, "euro", True) == "−€\u00a01.234" and view.amount(0.2, "euro", True) == "€\u00a00"
    assert view.amount(0.0623, "fraction", True) == "+6,2\u00a0procentpunt"
    assert view.months(1) == "1\u00a0maand" and view.count(None) == "<10"
    assert inner("Uit de uitkering") == "uit de uitkering" and inner("WW-uitkering") == "WW-uitkering"
    assert view.listing(["a", "b", "c"]) == "a, b en c"
