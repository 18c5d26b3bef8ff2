"""Checks on their way out: disclosure of the arms, the last look, the report and the plain text."""

from __future__ import annotations

from typing import Any

import pytest
from report_example import example_document

from evalkit.audit import audit
from evalkit.disclosure import protect
from evalkit.errors import DisclosureError
from evalkit.register.schema import Check, by_arm
from evalkit.report import account
from evalkit.report.blocks import words
from evalkit.report.findings import by_severity, check_counts, check_sentence
from evalkit.report.plain import design_text
from evalkit.report.view import View
from evalkit.results import _fields, _plain
from evalkit.text import LANGUAGES, say

Json = dict[str, Any]


def document(*checks: Check, profile: str = "municipal") -> Json:
    made = example_document()
    made["disclosure"] |= {"profile": profile, "minimum": 10}
    made["checks"] = [_plain(_fields(check)) for check in checks]
    return made


def check(starters: int, others: int, of: tuple[int, int] = (200, 800)) -> Check:
    arms = by_arm({True: starters, False: others}, {True: of[0], False: of[1]})
    count = starters + others
    return Check("spell_short", "info", "benefits", count, count / sum(of), {"column": "end"}, arms=arms)


@pytest.mark.parametrize(
    ("starters", "others", "shown"),
    [
        (31, 102, (135, 30, 100)),
        (3, 102, (105, None, None)),  # the other arm would give the three back
        (102, 3, (105, None, None)),
        (2, 3, (None, None, None)),
        (0, 102, (100, 0, 100)),
    ],
)
def test_both_arms_go_when_one_is_small(starters, others, shown):
    (safe,) = protect(document(check(starters, others)))["checks"]
    arms = safe["arms"]
    assert (safe["count"], arms["starters"]["count"], arms["others"]["count"]) == shown
    assert [arm["share"] is None for arm in arms.values()] == [arm["count"] is None for arm in arms.values()]


def test_an_empty_arm_is_hidden_where_zeros_are():
    (safe,) = protect(document(check(0, 102), profile="cbs"))["checks"]
    assert [arm["count"] for arm in safe["arms"].values()] == [None, None]


def test_shares_of_an_arm_come_from_rounded_counts():
    (safe,) = protect(document(check(31, 102)))["checks"]
    assert safe["arms"]["starters"] == {"count": 30, "share": 0.15}
    (safe,) = protect(document(check(195, 102)))["checks"]  # the five others of that arm are too few
    assert safe["arms"]["starters"]["share"] is None


def test_months_and_codes_are_no_persons():
    months = Check("exits_none", "warn", "benefits", 2, 2 / 108, {"column": "end", "month": "2019-03"}, "months")
    safe = protect(document(months))
    assert (safe["checks"][0]["count"], safe["checks"][0]["params"]["month"]) == (2, "2019-03")
    audit(safe)


def test_limits_in_a_sentence_stay():
    keys = Check("key_zeros_restored", "info", "persons", 200, 0.2, {"column": "RINPERSOON", "width": 9})
    (safe,) = protect(document(keys))["checks"]
    assert safe["params"] == {"column": "RINPERSOON", "width": 9}
    assert "9 cijfers" in check_sentence(View(protect(document(keys)), "nl"), safe, "say")


def test_a_share_that_rounds_to_nothing_and_one_that_is_hidden():
    many = Check("spell_short", "info", "benefits", 30, 0.001, {"column": "end"})
    few = Check("level_one_arm", "warn", "sample", 3, 0.01, {"column": "sex"})
    safe = protect(document(many, few))
    short, alone = (check_sentence(View(safe, "nl"), check, "say") for check in safe["checks"])
    assert short.startswith("30 uitkeringsperiodes (<1\u00a0%) duren")
    assert alone.startswith("<10 starters hebben")


def test_a_month_has_a_name():
    months = Check("exits_none", "warn", "benefits", 1, 1 / 108, {"column": "end", "month": "2019-03"}, "months")
    safe = protect(document(months))
    assert "maart 2019" in check_sentence(View(safe, "nl"), safe["checks"][0], "say")
    assert "March 2019" in check_sentence(View(safe, "en"), safe["checks"][0], "say")


def test_an_arm_of_which_nothing_was_judged_is_not_told():
    only = by_arm({True: 40, False: 0}, {True: 200, False: 0})
    late = Check("measured_after_start", "error", "persons", 40, 0.2, {"column": "measured"}, arms=only)
    assert only["others"] == {"count": 0, "share": None}
    safe = protect(document(late))
    assert check_sentence(View(safe, "nl"), safe["checks"][0], "say").count("tarters") == 1


@pytest.mark.parametrize("lang", LANGUAGES)
def test_errors_come_first_then_tables_in_their_order(lang):
    notes = [Check("spell_short", "info", name, 90, 0.1, {"column": "end"}) for name in ("benefits", "persons")]
    worst = Check("outcome_one_arm", "error", "sample", 90, 1.0, {"column": "in_work"})
    careful = Check("exits_none", "warn", "benefits", 2, 0.1, {"column": "end", "month": "2019-03"}, "months")
    safe = protect(document(*notes, careful, worst))
    text = design_text(safe, lang)
    places = [text.index(f"[{code}]") for code in ("outcome_one_arm", "exits_none", "spell_short")]
    assert places == sorted(places)
    view = View(safe, lang)
    assert [check["table"] for check in by_severity(view)["info"]] == ["persons", "benefits"]
    assert check_counts(view) == {"nl": "1 fout, 1 waarschuwing en 2 mededelingen",
                                  "en": "1 error, 1 warning and 2 notes"}[lang]  # fmt: skip
    page = words([account.checks(view)])
    assert page.index("[outcome_one_arm]") < page.index("[exits_none]") < page.index("[spell_short]")
    assert say("check.exits_none.fix", lang) in page and say("check.exits_none.why", lang) in text


def test_protecting_twice_changes_nothing():
    once = protect(document(check(3, 102), check(31, 102)))
    assert protect(once)["checks"] == once["checks"]


def test_the_last_look_sees_the_arms():
    safe = protect(document(check(31, 102)))
    audit(safe)
    safe["checks"][0]["arms"]["starters"]["count"] = 4
    with pytest.raises(DisclosureError):
        audit(safe)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_sentence_tells_the_arms(lang):
    safe = protect(document(check(31, 102), check(3, 102)))
    both, neither = (check_sentence(View(safe, lang), c, "say") for c in safe["checks"])
    assert ("15\u00a0%" if lang == "nl" else "15%") in both
    assert both.count(".") > neither.count(".") or lang == "nl"
    assert len(both) > len(neither)
    assert both in design_text(safe, lang)
