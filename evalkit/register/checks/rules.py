"""The rules on single rows, as data: a code, a test on the facts of a table, and how serious it is.

Each counts the rows that pass its test among those it judges. See ``docs/checks.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import narwhals as nw

from evalkit.register.checks.facts import STARTER, whole_months
from evalkit.register.checks.rows import CLOCK, Rule
from evalkit.register.schema import UNKNOWN

_c = nw.col
MANY = 100
"""Rows below which a distribution says little."""
SOME = 20
"""Rows below which a share says little."""

_ended = ~_c("end").is_null() & (_c("end") <= _c("last_day"))
_possible = (_c("age") >= 15) & (_c("age") <= 100)
_repeated = (_c("same_start_1") == _c("start")).fill_null(False)
_planned = ~_c("planned_end").is_null() & ~_c("end").is_null()
_born = ~_c("birth_year").is_null()
_seen = (_c("day") >= _c("first_day")) & (_c("day") <= _c("last_day"))  # benefits outside the window are set aside

ROW_RULES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        "persons": (
            Rule("key_alike", _c("alike") > 1, "person"),
            Rule("key_zeros_lost", _c("digits") & ~_c("zero") & (_c("length") < _c("width")), "person"),
            Rule("birth_year_missing", _c("birth_year").is_null(), "birth_year", "info"),
            Rule("person_without_spell", _c("spells") == 0, severity="info"),
            Rule("person_many_spells", _c("spells") > 10),
            Rule("person_many_starts", _c("__starts") > 5),
            Rule("measured_after_start", _c("measured") >= _c("__began"), "measured", "error", _c(STARTER)),
            Rule("measured_after_entry", _c("measured") > _c("entered"), "measured", "info"),
        ),
        "benefits": (
            Rule("spell_overlap", _c("start") <= _c("before"), "start"),
            Rule("spell_same_dates", (_c("start") == _c("start_1")) & (_c("until") == _c("until_1")), "start"),
            Rule("spell_touching", _c("start") == _c("free"), "start", "info"),
            Rule(
                "spell_gap_short",
                (_c("start") > _c("free")) & (whole_months(_c("free"), _c("start")) < 1),
                "start",
                "info",
            ),
            Rule("spell_one_day", _c("start") == _c("end"), "end", "info"),
            Rule("spell_short", (_c("end") > _c("start")) & (whole_months(_c("start"), _c("over")) < 1), "end", "info"),
            Rule("spell_after_window", _c("end") > _c("last_day"), "end", "info"),
            Rule("stock_large", _c("start") < _c("first_day"), "start", "info", least=0.3, rows=MANY),
            Rule("age_impossible", ~_possible, "birth_year", among=_born),
            Rule("age_below", _possible & (_c("age") < _c("age_low")), "birth_year", "info", _born),
            Rule("age_above", _possible & (_c("age") > _c("age_high")), "birth_year", "info", _born),
            Rule("reason_unknown", _c("reason") == UNKNOWN, "reason", "warn", _ended, 0.05, SOME),
            Rule("registered_late", whole_months(_c("start"), _c("registered")) >= 1, "registered", "info"),
            Rule("registered_after_end", _c("registered") > _c("end"), "registered"),
        ),
        "episodes": (
            Rule("episode_without_benefit", _c("held") == 0, CLOCK, among=_seen),
            Rule("start_on_first_day", _c("on_first") == 1, CLOCK, "info", _seen, 0.05, SOME),
            Rule("start_on_last_day", _c("on_last") == 1, CLOCK, "warn", _seen, 0.01, SOME),  # chance: about 0.2 %
            Rule(
                "start_after_spell", (_c("held") == 0) & (whole_months(_c("left"), _c("day")) < 3), CLOCK, among=_seen
            ),
            Rule(
                "start_before_spell",
                (_c("held") == 0) & (whole_months(_c("day"), _c("enters")) < 3),
                CLOCK,
                among=_seen,
            ),
            Rule(
                "episode_never_closed", _c("end").is_null() & (whole_months(_c("start"), _c("after_last")) >= 24), "end"
            ),
            Rule("episode_long", whole_months(_c("start"), _c("end")) >= 60, "end"),
            Rule("episode_one_day", _c("start") == _c("end"), "end", "info", ~_c("event")),
            Rule("episode_repeated", _repeated, "start"),
            Rule("episode_overlap_same", ~_repeated & (_c("start") <= _c("same_before")), "start"),
            Rule(
                "episode_overlap_other",
                (_c("start") <= _c("any_before")) & ~(_c("start") <= _c("same_before")).fill_null(False),
                "start",
                "info",
            ),
            Rule("planned_before_start", _c("planned_end") < _c("start"), "planned_end"),
            Rule("end_is_planned", _c("planned_end") == _c("end"), "end", "info", _planned, least=0.9, rows=MANY),
            Rule("cost_negative", _c("cost") < 0, "cost"),
            Rule("referral_after_start", _c("referral") > _c("start"), "referral"),
            Rule("referral_long_before", whole_months(_c("referral"), _c("start")) >= 12, "referral", "info"),
            Rule("referral_missing", _c("referral").is_null(), "referral", "info", _c("own")),
            Rule("registered_late", whole_months(_c("start"), _c("registered")) >= 1, "registered", "info"),
            Rule("registered_after_end", _c("registered") > _c("end"), "registered"),
        ),
        "jobs": (
            Rule("job_overlap", _c("start") <= _c("before"), "start", "info"),
            Rule("job_too_young", _c("start").dt.year() - _c("birth_year") < 15, "start", among=_born),
            Rule("job_one_day", _c("start") == _c("end"), "end", "info"),
            Rule("wage_negative", _c("wage") < 0, "wage"),
            Rule("hours_negative", _c("hours") < 0, "hours"),
            Rule("hours_high", _c("weekly") > 60, "hours"),
        ),
    }
)
"""By table: what is counted in its rows. A rule whose column the study does not map is passed over."""
