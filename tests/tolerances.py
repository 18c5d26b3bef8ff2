"""Every tolerance the tests use, in one place; a loose one says why."""

from __future__ import annotations

EXACT = 1e-12
"""The same sums in another order."""

SOLVED = 1e-9
"""Two routes through linear algebra (QR against normal equations, statsmodels against ours)."""

REFERENCE = 1e-6
"""Agreement with another program, relative to max(|value|, its standard error): contract 7."""

PRINTED = 5e-4
"""Half of the last shown digit of a fraction rounded to three decimals."""

MONTE_CARLO = 4.0
"""Standard errors of the simulation that a simulated number may lie off: with fixed seeds a failure is no bad luck,
and four allow some thirty comparisons without a false alarm for one in five hundred seeds."""

QUANTILE_DRAWS = 40_000
"""Draws of the real multiplier bootstrap: its 95 % quantile then has a standard error near 0.006, a tenth of what
separates a simultaneous critical value from a pointwise one."""

COVERAGE = (0.93, 0.97)
"""Simulated coverage of a 95 % band with known covariance: contract 7's limits; 2,000 draws have a standard error of
half a point."""
