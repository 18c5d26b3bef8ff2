"""A small run made by hand: what the results document, its schema and disclosure control are tested on.

``.venv/bin/python tests/results_example.py`` writes the golden file ``tests/golden/results.json`` anew; look at the
difference before keeping it.
"""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from profiles import ESTIMAND
from register_example import STUDY

from evalkit import gate, results, study
from evalkit.analyses.common import balance_table
from evalkit.balance import BalanceRow
from evalkit.disclosure import protect
from evalkit.effects import EffectProfile, Influence, subgroup_contrasts
from evalkit.exhibits import Analysis, Chart, Column, Note, Series, Table
from evalkit.register import Check, Input
from evalkit.results import Results
from evalkit.sample import FlowRow

GOLDEN = Path(__file__).parent / "golden" / "results.json"
SCHEMA = Path(results.__file__).parent / "results.schema.json"

TREATED, COMPARISON, MONTHS = 81, 130, 14


def profile(n1: int = TREATED, n0: int = COMPARISON, subgroup: str = "", seed: int = 1, **labels: str) -> EffectProfile:
    """Of ``n1`` treated ever more leave, in whole numbers; the effect is not round."""
    rng = np.random.default_rng(seed)
    k = np.arange(1, MONTHS + 1)
    left = np.floor(n1 * (1 - np.exp(-k / 15)) * 0.8)
    without = 0.5 * (1 - np.exp(-k / 9.7))
    psi = rng.normal(size=(n1 + n0, MONTHS)) * 0.4 / n1
    known = {
        "analysis": "main",
        "method": "matching",
        "instrument": "training",
        "comparison": "wait",
        "outcome": "left_to_work",
        "subgroup": subgroup,
        "better": "higher",
        "primary": "true",
    }
    return EffectProfile(
        estimand=replace(ESTIMAND, restriction="caliper"),
        labels=known | labels,
        month=k,
        estimate=left / n1 - without,
        counterfactual=without,
        n_treated=np.full(MONTHS, n1),
        n_comparison=np.full(MONTHS, n0),
        uncertainty=Influence(np.arange(n1 + n0) + 1_000 * seed, psi),
        se_kind="influence function, clustered on person",
    )


def _shares(treated: tuple[int, ...]) -> list[BalanceRow]:
    levels = ("laag", "midden", "hoog", "overig")
    rows = []
    for level, count, before in zip(levels, treated, (0.36, 0.3, 0.2, 0.14), strict=True):
        p = count / TREATED
        scale = np.sqrt(p * (1 - p)) or 1.0
        smd = ((p - before) / scale, (p - before) / scale / 9)
        rows.append(BalanceRow("education", level, p, before, p - smd[1] * scale, *smd, None, None, 0.4))
    return rows


def balance_rows(treated: tuple[int, ...] = (40, 25, 12, 4)) -> tuple[BalanceRow, ...]:
    """Age, a 0/1 column and education by level; ``treated`` counts the starters in each level."""
    return (
        BalanceRow("age", "", 38.21234, 42.98765, 38.44444, -0.40404, -0.02222, 0.84848, 0.98989, 0.3),
        BalanceRow("debt", "", 0.37037, 0.30769, 0.36154, 0.12987, 0.01829, 1.09, 1.01, 0.8),
        *_shares(treated),
    )


def love(rows: tuple[BalanceRow, ...]) -> Chart:
    """The balance as a chart."""
    names = tuple(f"{r.variable}:{r.level}" if r.level else r.variable for r in rows)
    count = tuple(round(r.mean_treated * TREATED) if r.level else TREATED for r in rows)
    before, after = (tuple(abs(getattr(r, f"smd_{when}")) for r in rows) for when in ("before", "after"))
    lines = (Series("before", before, support=count), Series("after", after, support=count))
    return Chart("love", "love", "interval", names, lines)


def overlap(treated: tuple[int, ...] = (0, 3, 12, 40, 20, 5, 1)) -> Chart:
    """Bins of the score; shares of all."""
    other = (30, 40, 30, 20, 10, 0, 0)
    lines = [
        Series(key, tuple((np.array(n) / sum(n)).tolist()), support=n)
        for key, n in (("treated", treated), ("comparison", other))
    ]
    x = tuple((np.linspace(-4, -1, 7) + 1 / 3).tolist())
    return Chart("overlap", "overlap", "area", x, tuple(lines), "share", "score")


def later_start(people: tuple[int, ...] = (0, 2, 8, 11, 12, 14, 15, 15, 17, 20, 21, 22, 24, 26)) -> Chart:
    """The share of 130 comparison persons that has started."""
    share = tuple(n / COMPARISON for n in people)
    lines = (Series("comparison", share, support=people),)
    return Chart("later_start", "later_start", "line", tuple(range(1, MONTHS + 1)), lines, "share", "month")


def model() -> Table:
    """Coefficients of the start model."""
    columns = (Column("variable", "variable", "text"), *(Column(key, key) for key in ("coefficient", "std_error")))
    names = ("intercept", "age", "debt", "education:hoog", "education:midden", "education:overig")
    rows = [
        {"variable": name, "coefficient": -0.123456 * i, "std_error": 0.0654321 * i} for i, name in enumerate(names, 1)
    ]
    return Table("model", "model", columns, tuple(rows))


def risk_sets(counts: tuple[tuple[int, int], ...] = ((30, 28), (31, 31), (15, 12), (5, 4))) -> Table:
    """Starters and matched starters by elapsed month."""
    columns = (
        Column("elapsed", "elapsed", "text", decimals=0),
        Column("n_treated", "n_treated", "count", decimals=0),
        Column("n_at_risk", "n_at_risk", "count", decimals=0),
        Column("matched", "matched", "count", parent="n_treated", decimals=0),
        Column("outside", "outside", "count", parent="n_treated", decimals=0),
    )
    rows = [
        {"elapsed": i, "n_treated": n, "n_at_risk": 400 - 99 * i, "matched": m, "outside": n - m}
        for i, (n, m) in enumerate(counts)
    ]
    return Table("risk_sets", "risk_sets", columns, tuple(rows))


def flow() -> tuple[FlowRow, ...]:
    """Two arms whose steps add up."""
    steps = {
        "treated": [("start", "all_starts", 140, 151), ("out", "stock", 33, 40), ("out", "age", 4, 6),
                    ("out", "follow_up", 22, 24), ("left", "left", 81, 81)],
        "comparison": [("start", "all_candidate_months", 900, 5400), ("out", "stock", 100, 700), ("out", "age", 0, 3),
                       ("out", "unmatched_not_used", 670, 4560), ("left", "left", 130, 137)],
    }  # fmt: skip
    return tuple(
        FlowRow(step, arm, kind, reason, persons, entries)  # type: ignore[arg-type]
        for arm, rows in steps.items()
        for step, (kind, reason, persons, entries) in enumerate(rows)
    )


def analysis() -> Analysis:
    """One matching analysis with a subgroup; the second level is small."""
    rows = balance_rows()
    whole = profile()
    groups = (profile(72, 115, "sex=man", 2), profile(9, 15, "sex=vrouw", 3))
    settings = study_of("open").gate
    later = later_start()
    return Analysis(
        "main",
        "matching",
        (whole, *groups, *subgroup_contrasts(groups)),
        (
            balance_table(rows, TREATED, COMPARISON, COMPARISON),
            love(rows),
            overlap(),
            later,
            model(),
            risk_sets(),
            Note("estimand_wait"),
        ),
        (
            *gate.balance_findings(rows, settings),
            gate.support_finding(TREATED, 85, settings),
            gate.Finding("later_start", "", "info", 0.2, None, {"share": 0.2, "horizon": MONTHS}),
        ),
    )


def study_of(disclosure: str) -> study.Study:
    """The study of the example under a disclosure profile."""
    text = STUDY.format(layout="", clock="start", referral="")
    return study.parse(f'{text}[disclosure]\nprofile = "{disclosure}"\nminimum = 10\n', Path("study.toml"))


def assemble(disclosure: str, made: Analysis | None = None, earlier: dict[str, Any] | None = None) -> Results:
    """The results of the example, with everything fixed that differs between machines."""
    made = made or analysis()
    chosen = study_of(disclosure)
    checks = (
        Check("spell_overlap", "warn", "benefits", 24, 24 / 900, {"column": "start"}),
        Check("person_missing", "warn", "benefits", 3, 3 / 900, {"column": "person"}),
    )
    judgements = gate.judge(made, "")
    made = gate.withhold(made, judgements)
    environment = {"python": "3.11", "platform": "Linux x86_64", "packages": {"numpy": "2.4"}}
    with (
        mock.patch.dict(os.environ, {"SOURCE_DATE_EPOCH": "1767225600"}),
        mock.patch.object(results, "environment", lambda: environment),
        mock.patch.object(results.evalkit, "__version__", "0.0.0"),
    ):
        return results.assemble(
            chosen,
            inputs=(Input("personen.csv", "ab" * 32, 1003),),
            checks=checks,
            flow=flow(),
            analyses=(made,),
            judgements=judgements,
            earlier=earlier,
        )


@cache
def _raw() -> dict[str, Any]:
    return dict(assemble("open").document)


def raw(disclosure: str = "municipal") -> dict[str, Any]:
    """The unprotected document, under the name of another disclosure profile."""
    document = copy.deepcopy(_raw())
    document["disclosure"]["profile"] = disclosure
    return document


def protected(disclosure: str = "municipal") -> dict[str, Any]:
    """The document as it may leave."""
    return protect(raw(disclosure))


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    document = assemble("municipal").document
    GOLDEN.write_text(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n", "utf-8")
    print(GOLDEN)
