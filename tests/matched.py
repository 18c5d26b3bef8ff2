"""Nearest neighbours with replacement and their bias-corrected effect, by the two doors of matching, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from evalkit.matching import Candidates, Matching, Pairs, estimate, match


def nearest(c: Candidates, ratio: int, width: float | None, unit: str) -> Pairs:
    """Pairs of candidates; ``unit`` as for frames."""
    return match(
        c.treated, how="nearest", score=c.score if unit.endswith("_linear") else expit(c.score), exact=c.stratum,
        person=c.person, key=c.key, ratio=ratio, replace=True, caliper=width,
        caliper_unit="sd_within" if unit.startswith("sd") else "raw",
    ).pairs  # fmt: skip


@dataclass(frozen=True)
class Matched:
    """Rows that pairs use, renumbered 0..m-1; ``rows`` are their numbers among the candidates."""

    rows: np.ndarray
    treated: np.ndarray
    control: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, pairs):
        rows = np.unique(np.concatenate([pairs.treated, pairs.control]))
        return cls(rows, np.searchsorted(rows, pairs.treated), np.searchsorted(rows, pairs.control), pairs.weight)

    def where(self, keep):
        """The pairs that are kept, each starter's weights again summing to one."""
        treated, control, weight = self.treated[keep], self.control[keep], self.weight[keep]
        total = np.bincount(treated, weight, minlength=len(self.rows))
        return Matched(self.rows, treated, control, weight / total[treated])

    def uses(self):
        """Summed match weight of each row; zero for starters."""
        return np.bincount(self.control, self.weight, minlength=len(self.rows)).astype(float)


def effect(matched: Matched, y, observed, x, person, cluster):
    """The bias-corrected effect with its influence function."""
    treated = np.zeros(len(matched.rows), bool)
    treated[matched.treated] = True
    nobody = np.arange(0)
    pairs = Pairs(matched.treated, matched.control, matched.weight, nobody, np.inf)
    weight = treated + matched.uses()
    matching = Matching(treated, "att", treated.astype(float), weight, pairs, None, nobody, nobody)
    return estimate(
        matching, y, observed, x, model="bias_corrected", errors="influence", person=person, cluster=cluster,
        level="person",
    )  # fmt: skip
