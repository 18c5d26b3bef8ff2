"""Honest intervals: against naive linear programmes, by simulation, and where they must refuse."""

from itertools import pairwise

import numpy as np
import pytest
from causaldata import castle
from naive import did_honest as naive
from scipy import special, stats
from tolerances import EXACT, MONTE_CARLO, SOLVED

from evalkit.did.effects import Effects
from evalkit.did.group_time import group_time
from evalkit.did.honest import breakdown, breakdown_arrays, fixed_length, honest, honest_arrays, hybrid, moments
from evalkit.did.honest.study import of_arrays, of_effects
from evalkit.did.panel import Panel
from evalkit.effects import Covariance, Influence, Intervals
from evalkit.errors import DesignError, UsageError

RESTRICTIONS = ("relative_magnitudes", "smoothness")


def drawn(seed, pre, post, size=1.0):
    """Estimates and a covariance with correlated periods."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3 * (pre + post), pre + post)) + rng.normal(size=(3 * (pre + post), 1))
    sigma = rows.T @ rows / len(rows) ** 2 * size**2
    return rng.multivariate_normal(np.zeros(pre + post), 4 * sigma), sigma


def effects_of(beta, sigma, pre, *, zero=-1, uncertainty=None, **changes):
    """Effects by event time with the base in its place."""
    post = len(beta) - pre
    at = np.arange(zero - pre, zero + post + 1)
    vcov = np.insert(np.insert(sigma, pre, 0.0, axis=0), pre, 0.0, axis=1)
    nothing = np.zeros(len(at), int)
    asked = {"by": "event", "at": at, "estimate": np.insert(beta, pre, 0.0), "counterfactual": np.full(len(at), np.nan)}
    asked |= {"n_treated": nothing, "n_comparison": nothing, "base": (zero,)}
    return Effects(**(asked | {"uncertainty": uncertainty or Covariance(vcov)} | changes))


def cases(restriction, study, weights, m):
    """Closed-form moments with the naive rows of the same set."""
    if restriction == "smoothness":
        named, parts = [(0, 1)], (moments.smoothness(study, weights, m),)
    else:
        named = [(i, s) for i in range(study.pre) for s in (1, -1)]
        parts = moments.relative_magnitudes(study, weights, m)
    for part, case in zip(parts, named, strict=True):
        yield part, *naive.inequalities(study.pre, study.post, restriction, m, *case)


WEIGHTS = {"first": [1, 0, 0], "last": [0, 0, 1], "average": [1 / 3] * 3, "sum": [1, 1, 0], "contrast": [1, -2, 0.5]}


@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_the_vertices_are_those_of_the_dual(restriction, weights):
    """The largest moment is the value of the linear programme, whatever the estimates."""
    weights = np.array(weights, float)
    for seed, m in ((0, 0.4), (1, 1.7)):
        for draw in range(4):
            beta, sigma = drawn(seed + 10 * draw, 2, 3)
            study = of_arrays(beta, drawn(seed, 2, 3)[1], 2, 3)
            for part, rows, bounds in cases(restriction, study, weights, m):
                g = naive.vertices(rows, study.sigma, 2, weights)
                for theta in (-0.7, 0.0, 0.3):
                    known = rows @ beta - bounds - rows[:, 2:] @ (weights * theta / (weights @ weights))
                    ours = (part.level - part.slope * theta).max()
                    assert ours == pytest.approx((g @ known).max(), abs=SOLVED)


@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("name", ["first", "average", "contrast"])
def test_the_test_decides_as_with_linear_programmes(restriction, name):
    weights = np.array(WEIGHTS[name], float)
    decided = []
    for seed in range(3):
        beta, sigma = drawn(seed, 2, 3)
        study = of_arrays(beta, sigma, 2, 3)
        for part, rows, bounds in cases(restriction, study, weights, 0.6 if restriction != "smoothness" else 0.05):
            critical = hybrid.least_favourable(part.loading, 0.005)
            pieces = hybrid.accepted(part, 0.05)
            ends = [end for piece in pieces for end in piece] or [0.0]
            width = np.sqrt(weights @ sigma[2:, 2:] @ weights)
            theta = np.array([end + shift * width for end in ends for shift in (-0.1, -0.005, 0.005, 0.1)])
            ours = hybrid.accepts(part, theta, 0.05, critical)
            asked = beta, sigma, 2, 3, weights, rows, bounds
            corners = naive.vertices(rows, sigma, 2, weights)
            slow = [naive.hybrid_accepts(*asked, value, 0.05, critical, corners) for value in theta]
            if seed == 0:  # the same without a list of vertices
                assert naive.hybrid_accepts(*asked, theta[1], 0.05, critical) == slow[1]
            assert ours.tolist() == slow
            inside = [any(low <= value <= high for low, high in pieces) for value in theta]
            assert inside == slow
            decided += slow
    assert 0.2 < np.mean(decided) < 0.8


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_the_least_favourable_quantile_is_that_of_draws(restriction):
    rng = np.random.default_rng(5)
    weights = np.array([1.0, -0.5, 0.5])
    beta, sigma = drawn(3, 2, 3)
    for part, rows, _ in cases(restriction, of_arrays(beta, sigma, 2, 3), weights, 1.0):
        at, error = naive.simulated_critical(rows, sigma, 2, weights, 0.05, 200_000, rng)
        assert abs(hybrid.least_favourable(part.loading, 0.05) - at) < MONTE_CARLO * error


def test_the_least_favourable_quantile_where_it_is_known():
    opposite = np.array([[0.3, 0.4], [-0.3, -0.4]])
    assert hybrid.least_favourable(opposite, 0.05) == pytest.approx(0.5 * special.ndtri(0.975), rel=EXACT)
    square = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    c = special.ndtri((1 + np.sqrt(0.95)) / 2)
    assert hybrid.least_favourable(square, 0.05) == pytest.approx(c, rel=EXACT)
    quarter = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert hybrid.least_favourable(quarter, 0.05) == pytest.approx(special.ndtri(np.sqrt(0.95)), rel=EXACT)


def test_sets_that_fall_apart_are_given_in_parts():
    """Where the pre-period contradicts a sign, the test accepts wherever another moment becomes the largest."""
    part = moments.Moments(np.array([-0.4, -0.4, 0.9]), np.array([0.6, -0.6, 0.0]), np.diag([1.0, 1.0, 1.0])[:, :2])
    part = moments.Moments(part.level, part.slope, np.array([[0.6, -0.2], [-0.6, -0.2], [0.0, -0.42]]))
    pieces = hybrid.accepted(part, 0.05)
    critical = hybrid.least_favourable(part.loading, 0.005)
    points = np.linspace(pieces[0][0] - 1, pieces[-1][1] + 1, 20_001)
    inside = hybrid.accepts(part, points, 0.05, critical)
    within = np.array([any(low <= p <= high for low, high in pieces) for p in points])
    assert (inside == within).all()
    assert len(pieces) == 2
    assert hybrid.union([pieces, ((pieces[0][1], pieces[1][0]),)]) == ((pieces[0][0], pieces[1][1]),)
    assert all(first[1] < second[0] for first, second in pairwise(hybrid.union([pieces, pieces])))
    far = moments.Moments(np.array([-0.4, -0.4, 30.0]), part.slope, part.loading)
    assert hybrid.accepted(far, 0.05) == ()
    apart = moments.Moments(np.array([20.0, 20.0, -1.0]), part.slope, part.loading)
    assert hybrid.accepted(apart, 0.05) == ()


def test_a_single_pair_of_moments_gives_the_usual_interval():
    beta, sigma = drawn(8, 3, 2)
    for weights in ([1.0, 0.0], [0.5, 0.5], [1.0, -1.0]):
        found = honest_arrays(beta, sigma, 3, 2, weights, m=[0.0])[0]
        reach = special.ndtri(0.975) * found.std_error
        assert (found.low, found.high) == pytest.approx((found.estimate - reach, found.estimate + reach), abs=SOLVED)
        linear = honest_arrays(beta, sigma, 3, 2, weights, m=[0.0], restriction="smoothness", method="hybrid")[0]
        steps = np.array(weights) @ [1, 2]
        v = np.array([0.0, 0.0, steps, *weights])  # less the last slope, drawn on
        reach = special.ndtri(0.975) * np.sqrt(v @ sigma @ v)
        assert (linear.low, linear.high) == pytest.approx((v @ beta - reach, v @ beta + reach), abs=SOLVED)


def test_folded_normal_quantile():
    for t in (0.0, 0.1, 1.0, 3.0, 8.0):
        assert fixed_length.folded_quantile(t, 0.05) == pytest.approx(stats.foldnorm.ppf(0.95, t), rel=1e-9)
    assert fixed_length.folded_quantile(0.0, 0.1) == pytest.approx(special.ndtri(0.95), rel=EXACT)
    assert fixed_length.folded_quantile(1e6, 0.05) == pytest.approx(1e6 + special.ndtri(0.95), rel=EXACT)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_no_affine_estimator_has_a_shorter_interval(weights):
    """Largest bias from the worst trend, put together change by change; nothing near or far is shorter."""
    weights = np.array(weights, float)
    rng = np.random.default_rng(1)
    for seed, m in ((0, 0.0), (1, 0.02), (2, 0.2), (3, 3.0)):
        beta, sigma = drawn(seed, 4, 3)
        best = fixed_length.optimal(of_arrays(beta, sigma, 4, 3), weights, m, 0.05)
        here = best.weights[:4]
        assert best.weights[4:] == pytest.approx(weights, abs=EXACT)
        assert naive.half_length(here, weights, sigma, m, 0.05) == pytest.approx(best.half, rel=1e-7)
        times = np.arange(-4.0, 0.0)
        for size in (1e-4, 1e-2, 1.0):
            for _ in range(6):
                step = rng.normal(size=4) * size * np.abs(here).max()
                step -= times * (times @ step) / (times @ times)  # linear trends stay removed
                assert naive.half_length(here + step, weights, sigma, m, 0.05) >= best.half * (1 - 1e-9)


def test_the_path_solves_the_lasso():
    rng = np.random.default_rng(2)
    for size in (1, 2, 5, 11):
        rows = rng.normal(size=(size + 2, size)) + rng.normal(size=(size + 2, 1))
        quadratic, linear = rows.T @ rows, rng.normal(size=size)
        path = fixed_length._Path(quadratic, linear)
        for penalty in np.linspace(0, 1.1, 23) * path.top:
            x = path.at(min(penalty, path.top))
            gradient = quadratic @ x + linear
            free = np.abs(x) > 1e-12
            assert np.abs(gradient).max() <= max(penalty, 0) + 1e-9 * (1 + path.top)
            if penalty <= path.top:
                assert gradient[free] == pytest.approx(-penalty * np.sign(x[free]), abs=1e-8)
    assert fixed_length._Path(np.empty((0, 0)), np.empty(0)).at(0.0).shape == (0,)


def rejected(restriction, method, delta, pre, weights, m, sigma, draws, seed, effect=0.3):
    """Share of draws in which the true effect is not in the set."""
    rng = np.random.default_rng(seed)
    post = len(delta) - pre
    truth = delta + np.append(np.zeros(pre), np.full(post, effect))
    theta = float(np.sum(weights) * effect)
    noise = rng.multivariate_normal(truth, sigma, size=draws)
    if method == "fixed_length":
        best = fixed_length.optimal(of_arrays(truth, sigma, pre, post), weights, m, 0.05)
        return np.mean(np.abs(noise @ best.weights - theta) > best.half)
    make = moments.relative_magnitudes if restriction == "relative_magnitudes" else moments.smoothness

    def values(beta):
        found = make(of_arrays(beta, sigma, pre, post), weights, m)
        return found if isinstance(found, tuple) else (found,)

    covered = np.zeros(draws, bool)
    # moments are affine in the estimates: one level and its slope in each serve all draws
    for part, *others in zip(values(np.zeros(len(delta))), *map(values, np.eye(len(delta))), strict=True):
        level = part.level + noise @ np.array([other.level - part.level for other in others])
        critical = hybrid.least_favourable(part.loading, 0.005)
        covered |= hybrid.decide(level - part.slope * theta, part.loading, 0.05, critical)
    return 1 - covered.mean()


DRAWS = 4000
# delta before (-3, -2; base -1 is zero) and after (0, 1): at the edge of each set, where covering is hardest
EDGES = {
    "rm far": ("relative_magnitudes", "hybrid", [-4.0, -4.0, 4.0, 8.0], 1.0),
    "rm near": ("relative_magnitudes", "hybrid", [0.1, 0.1, 0.1, 0.2], 1.0),
    "rm none": ("relative_magnitudes", "hybrid", [0.0, 0.0, 0.0, 0.0], 0.5),
    "smooth": ("smoothness", "hybrid", [0.0, 0.0, 0.5, 1.5], 0.5),
    "smooth line": ("smoothness", "hybrid", [-2.0, -1.0, 1.0, 2.0], 0.5),
    "fixed": ("smoothness", "fixed_length", [0.5, 0.0, 0.5, 1.5], 0.5),
    "fixed line": ("smoothness", "fixed_length", [-2.0, -1.0, 1.0, 2.0], 0.0),
}


WORST = {"rm far", "smooth", "fixed line"}
"""Trends that are the worst of their set, where no interval of this kind covers more than it should."""


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, 1.0]], ids=["first", "sum"])
def test_the_set_covers(name, weights):
    restriction, method, delta, m = EDGES[name]
    sigma = 0.04 * (np.eye(4) + 0.5)
    miss = rejected(restriction, method, np.array(delta), 2, np.array(weights), m, sigma, DRAWS, 11)
    near = MONTE_CARLO * np.sqrt(0.05 * 0.95 / DRAWS)
    assert miss < 0.05 + near
    if name in WORST:
        assert miss > 0.05 - near


def test_the_usual_interval_does_not_cover_where_this_one_does():
    restriction, method, delta, m = EDGES["rm far"]
    sigma = 0.04 * (np.eye(4) + 0.5)
    assert rejected(restriction, method, np.array(delta), 2, np.array([1.0, 0.0]), 0.0, sigma, 100, 1) == 1.0
    assert rejected(restriction, method, np.array(delta), 2, np.array([1.0, 0.0]), m, sigma, 100, 1) < 0.15


@pytest.mark.parametrize(
    ("restriction", "method"), [("relative_magnitudes", None), ("smoothness", None), ("smoothness", "hybrid")]
)
def test_scale_sign_and_bounds(restriction, method):
    """Twice the unit, twice the set; the other sign, the mirrored set; a larger bound, a larger set."""
    beta, sigma = drawn(4, 3, 2)
    bounds = [0.0, 0.1, 0.4, 1.0]
    asked = {"restriction": restriction, "method": method}
    found = honest_arrays(beta, sigma, 3, 2, "cumulated", m=bounds, **asked)
    scaled = [2 * b for b in bounds] if restriction == "smoothness" else bounds
    twice = honest_arrays(-2 * beta, 4 * sigma, 3, 2, "cumulated", m=scaled, **asked)
    for one, two in zip(found, twice, strict=True):
        assert (two.low, two.high) == pytest.approx((-2 * one.high, -2 * one.low), rel=1e-8)
    for start in range(0, len(found), len(bounds)):
        rows = found[start : start + len(bounds)]
        assert len({row.contrast for row in rows}) == 1
        length = [row.high - row.low for row in rows]
        assert (np.diff(length) > 0).all()
    wide = honest_arrays(beta, sigma, 3, 2, m=[0.4], level=0.99, **asked)[0]
    narrow = honest_arrays(beta, sigma, 3, 2, m=[0.4], level=0.9, **asked)[0]
    assert wide.low < narrow.low < narrow.high < wide.high


def test_contrasts_have_their_weights():
    beta, sigma = drawn(5, 2, 3)
    named = {c: honest_arrays(beta, sigma, 2, 3, c, m=[1.0]) for c in ("first", "each", "average", "cumulated")}
    assert [h.contrast for h in named["each"]] == ["event 0", "event 1", "event 2"]
    assert [h.event for h in named["cumulated"]] == [0, 1, 2]
    assert np.array([h.weights for h in named["cumulated"]]).tolist() == np.tril(np.ones((3, 3))).tolist()
    assert named["average"][0].estimate == pytest.approx(beta[2:].mean(), rel=EXACT)
    assert named["cumulated"][2].estimate == pytest.approx(beta[2:].sum(), rel=EXACT)
    assert named["cumulated"][2].std_error == pytest.approx(np.sqrt(sigma[2:, 2:].sum()), rel=EXACT)
    given = honest_arrays(beta, sigma, 2, 3, [[1, 0, 0], [1, 1, 1]], m=[1.0])
    ends = [(h.low, h.high) for h in given]
    assert ends == [(h.low, h.high) for h in (named["first"][0], named["cumulated"][2])]
    assert given[1].contrast == "weights 2" and given[1].event is None


@pytest.mark.parametrize(
    ("restriction", "method"), [("relative_magnitudes", None), ("smoothness", None), ("smoothness", "hybrid")]
)
def test_breakdown_is_where_the_set_first_reaches_the_null(restriction, method):
    beta, sigma = drawn(6, 3, 2, 0.1)
    beta[3:] += 15 * np.sqrt(np.diag(sigma))[3:]
    asked = {"restriction": restriction, "method": method}
    for found in breakdown_arrays(beta, sigma, 3, 2, "each", **asked):
        assert found.value > 0
        just = [found.value * (1 - 1e-6), found.value * (1 + 1e-6)]
        below, above = honest_arrays(beta, sigma, 3, 2, found.weights, m=just, **asked)
        assert below.low > 0
        assert above.low <= 0 <= above.high
    zero = breakdown_arrays(beta, sigma, 3, 2, null=float(beta[3]), **asked)[0]
    if method is None and restriction == "relative_magnitudes":
        assert zero.value == 0.0


def test_a_breakdown_may_be_infinite():
    """Under smoothness the set of the difference of effects, less a line, grows without end; without noise before the
    base there is hardly a step to multiply."""
    sigma = np.diag([1e-8, 1e-8, 1.0, 1.0]) * 1e-4
    found = breakdown_arrays(np.array([0.0, 0.0, 1.0, 1.0]), sigma, 2, 2)[0]
    assert found.value > 1e3
    huge = breakdown_arrays(np.array([0.0, 0.0, 1e9, 1e9]), sigma, 2, 2)[0]
    assert huge.value == np.inf


def test_one_period_before_suffices():
    beta, sigma = drawn(7, 1, 2)
    for restriction, method in (("relative_magnitudes", None), ("smoothness", None), ("smoothness", "hybrid")):
        found = honest_arrays(beta, sigma, 1, 2, "average", m=[0.3], restriction=restriction, method=method)[0]
        assert found.low < found.high


def test_periods_of_anticipation_hold_no_bound():
    """With the base two periods before treatment the period between is free; the first effect is event time 0."""
    beta, sigma = drawn(9, 3, 4)
    found = honest(effects_of(beta, sigma, 3, zero=-2), m=[1.0])[0]
    same = honest_arrays(beta, sigma, 3, 4, [0, 1, 0, 0], m=[1.0])[0]
    assert (found.low, found.high, found.event) == (same.low, same.high, 0)
    assert found.estimate == pytest.approx(beta[4], rel=EXACT)


def test_effects_of_an_estimator():
    """Laws of self-defence: group-time effects and their influence, straight into an interval."""
    data = castle.load_pandas().data
    first = data[data["post"] > 0].groupby("sid")["year"].min().reindex(data["sid"]).to_numpy()
    panel = Panel.of(data["sid"], data["year"], data["l_homicide"], first)
    effects = group_time(panel, control="never", base="universal").aggregate("event")
    assert isinstance(effects.uncertainty, Influence)
    study = of_effects(effects, (-4, 3))
    assert study.event.tolist() == [-4, -3, -2, 0, 1, 2, 3]
    found = honest(effects, m=[0.0, 1.0], window=(-4, 3))
    same = honest_arrays(study.beta, study.sigma, 3, 4, m=[1.0])[0]
    assert (found[1].low, found[1].high) == (same.low, same.high)
    place = effects.at.tolist().index(0)
    reach = special.ndtri(0.975) * effects.std_error[place]
    assert found[0].high == pytest.approx(effects.estimate[place] + reach, abs=SOLVED)
    assert [worth.event for worth in breakdown(effects, window=(-4, 3), contrast="each")] == [0, 1, 2, 3]
    other = group_time(panel, control="never", base="varying").aggregate("event")
    assert code_of(lambda: honest(other, window=(-4, 3))) == "did.honest_needs_universal_base"


def code_of(call):
    with pytest.raises((UsageError, DesignError)) as error:
        call()
    fault = error.value.faults[0]
    assert fault.text("en") and fault.text("nl")
    return fault.code


BETA, SIGMA = drawn(0, 2, 2)


def effects(**changes):
    return effects_of(BETA, SIGMA, 2, **changes)


FAULTS = {
    "honest_needs_event_times": [lambda: honest(effects(by="calendar"))],
    "honest_needs_universal_base": [
        lambda: honest(effects(base=())),
        lambda: honest(effects(base=(-3, -1))),
        lambda: honest(effects(base=(-9,))),
        lambda: honest(effects(base=(0,))),
    ],
    "honest_no_covariance": [lambda: honest(effects(uncertainty=Intervals(np.zeros(5), np.ones(5), 0.95, "x")))],
    "honest_gaps": [
        lambda: honest(effects(estimate=np.array([np.nan, 0.0, 0.0, 1.0, 1.0]))),
        lambda: honest(effects(at=np.array([-4, -2, -1, 0, 1]))),
        lambda: honest(effects(), window=(-3, 2)),
    ],
    "honest_no_pre": [lambda: honest(effects(), window=(-1, 1)), lambda: honest_arrays(BETA, SIGMA, 0, 4)],
    "honest_no_post": [lambda: honest(effects(), window=(-3, -1)), lambda: honest_arrays(BETA, SIGMA, 4, 0)],
    "honest_degenerate": [
        lambda: honest_arrays(BETA, np.diag([1.0, 1.0, 0.0, 1.0]), 2, 2),
        lambda: honest_arrays(BETA, np.kron(np.eye(2), np.ones((2, 2))), 2, 2),
    ],
    "honest_singular": [
        lambda: honest_arrays(BETA[[0, 1, 2, 3]], FLAT, 2, 2, [3.0, -1.0]),
        lambda: honest_arrays(BETA, FLAT, 2, 2, restriction="smoothness"),
    ],
    "honest_contrast": [lambda: honest(effects(), contrast="second"), lambda: breakdown(effects(), contrast="")],
    "honest_weights": [
        lambda: honest(effects(), contrast=[1.0, 2.0, 3.0]),
        lambda: honest(effects(), contrast=[0.0, 0.0]),
        lambda: honest(effects(), contrast=[np.nan, 0.0]),
    ],
    "honest_m": [lambda: honest(effects(), m=[-0.1]), lambda: honest(effects(), m=[np.inf])],
    "honest_method": [
        lambda: honest(effects(), method="fixed_length"),
        lambda: breakdown(effects(), restriction="parallel"),
        lambda: honest(effects(), method="conditional"),
    ],
    "honest_level": [lambda: honest(effects(), level=95), lambda: breakdown(effects(), level=0.0)],
    "honest_shapes": [
        lambda: honest_arrays(BETA, SIGMA, 3, 2),
        lambda: honest_arrays(BETA * np.nan, SIGMA, 2, 2),
        lambda: honest_arrays(BETA, SIGMA + np.eye(4, k=1), 2, 2),
        lambda: honest_arrays(BETA, -SIGMA, 2, 2),
    ],
}
# the last two effects are one number and three times it
FLAT = np.array([[2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 3.0, 9.0]])


@pytest.mark.parametrize("code", FAULTS)
def test_what_it_refuses(code):
    for call in FAULTS[code]:
        assert code_of(call) == f"did.{code}"


def test_a_singular_covariance_is_no_harm_to_relative_magnitudes():
    """Fewer clusters than periods: the test looks at two combinations at a time only."""
    found = honest_arrays(BETA, FLAT, 2, 2, "average", m=[1.0])[0]
    assert found.low < found.estimate < found.high
