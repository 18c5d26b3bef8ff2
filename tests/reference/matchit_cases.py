"""Make ``matchit_cases.json``: ``python matchit_cases.py matching.json weighting.json``.

The two files hold what R 4.2.2 said: MatchIt 4.7.1 and Matching 4.10-8 on the rows of the package ``causaldata`` (MIT):
``nsw_mixtape``, treated (185), above ``cps_mixtape`` (15,992), and the experiment ``nsw_mixtape`` itself. Row numbers
count from 0 in that order. Kept: pairs, numbers matched, effective sizes and weighted differences in ``re78``.
"""

import json
import sys
from pathlib import Path

PAIRS = (
    "nn_1to1_norepl", "nn_1to1_norepl_caliper02", "nn_1to1_norepl_linear_caliper02", "nn_1to3_repl", "nn_1to1_repl",
    "nn_1to1_repl_caliper", "nn_mdata", "maha_exact", "maha_exact_repl", "maha_mahvars_caliper",
)  # fmt: skip
STRATA = ("cem", "cem_cutpoints", "exact", "subclass6")


def main(matching: Path, weighting: Path) -> None:
    """Write the figures that the tests use."""
    one, other = json.loads(matching.read_text()), json.loads(weighting.read_text())
    cases = {}
    for name in (*PAIRS, *STRATA):
        source = one["nsw_cps"][name]
        numbers = source["n"]
        cases[name] = {
            "spec": source["spec"],
            "effect": source["effect"]["att_weighted_means"],
            "matched": {arm: numbers[arm]["Matched"] for arm in ("treated", "control")},
            "ess_control": numbers["control"]["Matched (ESS)"],
        }
        if name in PAIRS:
            cases[name]["pairs"] = source["pairs"]["controls"]
            cases[name]["caliper"] = source.get("caliper_abs", {}).get("1")
    cases["subclass6_ATE"] = {
        "spec": one["nsw_cps"]["subclass6_ATE"]["spec"],
        "effect": one["nsw_cps"]["subclass6_ATE"]["ate"],
    }
    keep = ("est_noadj", "n_matched_pairs_rows", "n_dropped", "nobs", "se_standard")
    imbens = {
        data: {
            name: {k: case[k] for k in keep}
            for name, case in other[data].items()
            if name.startswith("match_") and case["se_abadie_imbens"] is not None
        }
        for data in ("nsw_cps", "nsw_experiment")
    }
    out = {
        "provenance": "R 4.2.2; MatchIt 4.7.1 (cases), Matching 4.10-8 (matching, norepl); rows: causaldata 0.1.5",
        "coefficients": one["nsw_cps"]["propensity"]["coef"],
        "cases": cases,
        "matching": imbens,
        "norepl": {data: other[data]["match_ps_m1_norepl"]["est_noadj"] for data in imbens},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
