"""Do the intervals of the regression-based estimators cover? Outcomes correlate within units, effects depend on x."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from tolerances import COVERAGE, MONTE_CARLO

from evalkit.did.extended import extended
from evalkit.did.panel import Panel
from evalkit.did.stacked import stacked
from evalkit.did.sun_abraham import sun_abraham

pytestmark = pytest.mark.slow

PERIODS = np.arange(1, 7)
LEVEL = {99: -0.6, 3: -0.3, 5: 0.1}
DRAWS = 400
MEAN = {"logit": special.expit, "poisson": lambda index: 0.8 * np.exp(index), "linear": lambda index: index}


def draw(rng, family, units):
    """Parallel trends given x on the scale of the family; cohort depends on x; the effects themselves (N, T)."""
    x = rng.normal(size=units)
    odds = np.exp(np.column_stack([0 * x, 0.4 * x - 0.3, -0.3 * x - 0.2]))
    which = (rng.random(units)[:, None] > np.cumsum(odds / odds.sum(1, keepdims=True), 1)).sum(1)
    first = np.array([99, 3, 5])[which]
    index = np.vectorize(LEVEL.get)(first)[:, None] + 0.15 * PERIODS + (0.28 + 0.035 * PERIODS) * x[:, None]
    since = PERIODS - first[:, None]
    effect = (since >= 0) * (0.4 + 0.2 * since) * (1 + 0.3 * x[:, None])
    latent = np.sqrt(0.4) * rng.normal(size=(units, 1)) + np.sqrt(0.6) * rng.normal(size=(units, len(PERIODS)))
    mean = MEAN[family]
    if family == "logit":
        outcome = (stats.norm.cdf(latent) < mean(index + effect)).astype(float)
    elif family == "poisson":  # more spread than a Poisson has, with the right mean
        outcome = rng.poisson(mean(index + effect) * rng.gamma(2.0, 0.5, (units, 1))).astype(float)
    else:
        outcome = index + effect + latent
    return x, first, outcome, mean(index + effect) - mean(index)


def panel_of(x, first, outcome, covariate=True):
    n, t = outcome.shape
    return Panel.of(
        np.repeat(np.arange(n), t), np.tile(PERIODS, n), outcome.ravel(), np.repeat(first, t),
        x=np.repeat(x, t) if covariate else None, names=("x",) if covariate else (),
    )  # fmt: skip


def covers(z):
    """Contract 7: fails when the 99 % Wilson interval of the coverage lies wholly outside the limits; and no bias."""
    hit, n, q = (np.abs(z) < stats.norm.ppf(0.975)).mean(), len(z), stats.norm.ppf(0.995)
    middle = (hit + q**2 / (2 * n)) / (1 + q**2 / n)
    half = q * np.sqrt(hit * (1 - hit) / n + q**2 / (4 * n**2)) / (1 + q**2 / n)
    assert middle + half >= COVERAGE[0] and middle - half <= COVERAGE[1], hit
    assert abs(z.mean()) < 0.1 + MONTE_CARLO / np.sqrt(n)  # a tenth of a standard error: skewness in small samples


@pytest.mark.parametrize("family", ["logit", "poisson", "linear"])
def test_extended_covers(family):
    rng = np.random.default_rng(11)
    _, first, _, effect = draw(np.random.default_rng(1), family, 300_000)
    treated = PERIODS >= first[:, None]
    truth, last = effect[treated].mean(), effect[first == 3, -1].mean()
    z = np.empty((DRAWS, 2))
    for r in range(DRAWS):
        cells = extended(panel_of(*draw(rng, family, 400)[:3]), family=family)
        simple = cells.aggregate("simple")
        cell = (cells.group == 3) & (cells.time == 6)
        z[r] = (
            ((simple.estimate - truth) / simple.std_error).item(),
            ((cells.estimate[cell] - last) / cells.std_error[cell]).item(),
        )
    for column in z.T:
        covers(column)


@pytest.mark.parametrize("method", ["stacked", "sun_abraham"])
def test_without_covariates_covers(method):
    """Trends parallel without x (its course is taken out); effects differ by cohort, so that shares matter."""
    rng = np.random.default_rng(12)

    def sample(source, units):
        x, first, outcome, effect = draw(source, "linear", units)
        flat = outcome - 0.035 * PERIODS * x[:, None]
        return x, first, flat + (first == 3)[:, None] * (effect != 0) * 2.0, effect + (first == 3)[:, None] * 2.0

    _, first, _, effect = sample(np.random.default_rng(1), 300_000)
    by_cohort = [effect[first == g, g].mean() for g in (3, 5)]  # one period after the first treated one
    truth = np.average(by_cohort, weights=[(first == g).sum() for g in (3, 5)])
    z = np.empty(DRAWS)
    for r in range(DRAWS):
        panel = panel_of(*sample(rng, 200)[:3], covariate=False)
        found = stacked(panel, before=2, after=1) if method == "stacked" else sun_abraham(panel).aggregate("event")
        at = found.at == 1
        z[r] = ((found.estimate[at] - truth) / found.std_error[at]).item()
    covers(z)
