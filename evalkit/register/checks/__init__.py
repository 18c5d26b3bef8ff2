"""The checks: which rows cannot be used and why, and what else a reader of the results should know.

``rows`` sorts out the rows that cannot be used while the tables are built. ``Survey`` looks at the finished tables:
rules on rows (``rules``, on the ``facts`` of a table), on days (``days``) and on columns (``columns``), each of them
declared as data with a code and a severity. Sentences stand under ``check.<code>``; ``docs/checks.md`` lists all.
"""

from evalkit.register.checks.columns import Column, column_checks
from evalkit.register.checks.facts import next_day
from evalkit.register.checks.rows import (
    HALF,
    KNOWN,
    REASON,
    Rule,
    birth_year,
    blanks,
    changing_drops,
    conflicting,
    drop_rules,
    duplicate,
    not_numeric,
    notes,
    points,
    reasons,
    records,
    set_aside,
    sift,
    unreadable,
)
from evalkit.register.checks.survey import Sifted, Survey

__all__ = [
    "HALF",
    "KNOWN",
    "REASON",
    "Column",
    "Rule",
    "Sifted",
    "Survey",
    "birth_year",
    "blanks",
    "changing_drops",
    "column_checks",
    "conflicting",
    "drop_rules",
    "duplicate",
    "next_day",
    "not_numeric",
    "notes",
    "points",
    "reasons",
    "records",
    "set_aside",
    "sift",
    "unreadable",
]
