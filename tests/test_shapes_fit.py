"""A fit on patterns with their counts is the fit on rows: coefficients, standard errors, also those by person."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sample_example import protocol
from test_sample_twin import FIRST, LAST, crooked

from evalkit import register
from evalkit.sample.shapes import Splits, Traits, episodes, patterns

CLOSE = dict(rtol=1e-8, atol=1e-8)


@pytest.fixture(scope="module", params=["person", "team"])
def both(request):
    """The same spells as rows and as patterns, with the level at which they are clustered."""
    tables = crooked(21, 600)
    made = protocol(seed=5, first=str(FIRST), last=str(LAST), spells="", cluster=request.param)
    held = register.from_frames(made, **tables)
    splits = Splits(since_entry=(3, 6, 12, 24), since_start=(6,))
    traits = Traits(columns=["sex", "age"], bands={"age": (30, 45)})
    made_by = [make(held, made, splits, traits).collect("pandas").to_native() for make in (episodes, patterns)]
    rows, cells = made_by
    rows["count"], rows["who"] = 1, rows["cluster"]
    cells["who"] = cells["pattern"] if request.param == "person" else cells["cluster"]
    assert len(cells) < len(rows)
    assert cells.drop_duplicates("pattern")["count"].sum() == rows["person"].nunique()
    return rows, cells, request.param


def design(frame):
    """Baseline by duration, whether started, covariates."""
    made = {"one": np.ones(len(frame))}
    for cut in (3, 6, 12, 24):
        made[f"from_{cut}"] = frame["start"] >= cut
    made["early"] = frame["since_start"].notna() & (frame["since_start"] < 6)
    made["late"] = frame["since_start"].notna() & (frame["since_start"] >= 6)
    made["woman"] = frame["sex"] != "man"
    age = frame["age"].astype("Float64")
    made["middle"], made["old"], made["unknown"] = age == 1, age == 2, age.isna()
    return pd.DataFrame(made).fillna(False).astype(float).to_numpy()


def by_month(frame):
    """Months at risk: each episode as its own months, of which only the last may have the exit."""
    length = (frame["stop"] - frame["start"]).to_numpy(int)
    whole = frame.loc[frame.index.repeat(length)].reset_index(drop=True)
    nth = np.arange(len(whole)) - np.repeat(np.cumsum(length) - length, length)
    whole["event"] = np.where(nth == np.repeat(length, length) - 1, whole["event"], 0)
    return whole


def newton(x, y, count, mean, weight, offset=0.0):
    """Coefficients that set the score to zero, and the bread."""
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        fitted = mean(x @ beta + offset)
        bread = np.linalg.inv((x * (count * weight(fitted))[:, None]).T @ x)
        step = bread @ (x.T @ (count * (y - fitted)))
        beta = beta + step
        if np.abs(step).max() < 1e-13:
            break
    return beta, bread


def sandwich(x, residual, bread, frame, level):
    """Clustered: persons of a pattern have the same score, of a team all scores of its persons are added up."""
    own = pd.DataFrame(x * residual[:, None])
    if level == "person":
        score = own.groupby(frame["who"].to_numpy()).sum().to_numpy()
        count = frame.groupby("who")["count"].first().to_numpy(float)
    else:
        score = own.mul(frame["count"].to_numpy(float), axis=0).groupby(frame["who"].to_numpy()).sum().to_numpy()
        count = np.ones(len(score))
    return bread @ ((score * count[:, None]).T @ score) @ bread


def logistic(eta):
    return 1 / (1 + np.exp(-eta))


def test_discrete_time_logit(both):
    rows, cells, level = both
    fits = []
    for frame in (by_month(rows), by_month(cells)):
        x, y, count = design(frame), frame["event"].to_numpy(float), frame["count"].to_numpy(float)
        beta, bread = newton(x, y, count, logistic, lambda p: p * (1 - p))
        v = sandwich(x, y - logistic(x @ beta), bread, frame, level)
        fits.append((beta, np.sqrt(np.diag(bread)), np.sqrt(np.diag(v))))
    for one, other in zip(*fits, strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)
    whole, few = by_month(rows), by_month(cells)
    assert len(few) < len(whole)
    usual = sm.GLM(whole["event"], design(whole), family=sm.families.Binomial())
    codes = pd.factorize(whole["who"])[0]
    clustered = usual.fit(tol=1e-13, cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False})
    np.testing.assert_allclose(fits[1][0], clustered.params, **CLOSE)
    np.testing.assert_allclose(fits[1][1], usual.fit(tol=1e-13).bse, **CLOSE)
    np.testing.assert_allclose(fits[1][2], clustered.bse, **CLOSE)
    counted = sm.GLM(few["event"], design(few), family=sm.families.Binomial(), freq_weights=few["count"]).fit(tol=1e-13)
    np.testing.assert_allclose(counted.params, clustered.params, **CLOSE)
    np.testing.assert_allclose(counted.bse, fits[0][1], **CLOSE)


def test_piecewise_constant_hazard(both):
    """Poisson with the months as exposure, on episodes as they are."""
    rows, cells, level = both
    fits = []
    for frame in (rows, cells):
        x, y, count = design(frame), frame["event"].to_numpy(float), frame["count"].to_numpy(float)
        offset = np.log((frame["stop"] - frame["start"]).to_numpy(float))
        beta, bread = newton(x, y, count, np.exp, lambda m: m, offset)
        v = sandwich(x, y - np.exp(x @ beta + offset), bread, frame, level)
        fits.append((beta, np.sqrt(np.diag(bread)), np.sqrt(np.diag(v))))
    for one, other in zip(*fits, strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)
    usual = sm.GLM(
        rows["event"],
        design(rows),
        family=sm.families.Poisson(),
        exposure=(rows["stop"] - rows["start"]).to_numpy(float),
    )
    clustered = usual.fit(
        tol=1e-13, cov_type="cluster", cov_kwds={"groups": pd.factorize(rows["who"])[0], "use_correction": False}
    )
    np.testing.assert_allclose(fits[1][0], clustered.params, **CLOSE)
    np.testing.assert_allclose(fits[1][2], clustered.bse, **CLOSE)
