"""What if something was not measured: sensitivity of an estimate to hidden bias, and checks where no effect can be.

- :mod:`evalkit.sensitivity.rosenbaum`: bounds by the odds of treatment within matched sets;
- :mod:`evalkit.sensitivity.evalue`: E-values of ratios and differences;
- :mod:`evalkit.sensitivity.omitted`: omitted variable bias of a regression in partial R2;
- :mod:`evalkit.sensitivity.simulated`: a simulated binary confounder, with any estimator;
- :mod:`evalkit.sensitivity.placebo`: placebo outcomes, equivalence and joint test;
- :mod:`evalkit.sensitivity.negative_controls`: empirical calibration and correction by one control.
"""

from evalkit.sensitivity.evalue import EValue, evalue_difference, evalue_ratio, evalue_risk_difference
from evalkit.sensitivity.negative_controls import (
    Calibrated,
    Corrected,
    SystematicError,
    calibrate,
    corrected_by_control,
    systematic_error,
)
from evalkit.sensitivity.omitted import (
    Adjusted,
    Contours,
    Regression,
    adjusted,
    benchmark_bounds,
    contours,
    linear_regression,
    partial_r2,
    robustness_value,
)
from evalkit.sensitivity.placebo import Placebo, placebo_equivalence, placebo_of_profile
from evalkit.sensitivity.rosenbaum import (
    EstimateBounds,
    PValueBounds,
    critical_gamma,
    hodges_lehmann_bounds,
    mantel_haenszel_bounds,
    matched_set_bounds,
    mcnemar_bounds,
    signed_rank_bounds,
)
from evalkit.sensitivity.simulated import (
    Chances,
    SimulatedConfounder,
    killer_chances,
    observed_chances,
    simulated_confounder,
)

__all__ = [
    "Adjusted",
    "Calibrated",
    "Chances",
    "Contours",
    "Corrected",
    "EValue",
    "EstimateBounds",
    "PValueBounds",
    "Placebo",
    "Regression",
    "SimulatedConfounder",
    "SystematicError",
    "adjusted",
    "benchmark_bounds",
    "calibrate",
    "contours",
    "corrected_by_control",
    "critical_gamma",
    "evalue_difference",
    "evalue_ratio",
    "evalue_risk_difference",
    "hodges_lehmann_bounds",
    "killer_chances",
    "linear_regression",
    "mantel_haenszel_bounds",
    "matched_set_bounds",
    "mcnemar_bounds",
    "observed_chances",
    "partial_r2",
    "placebo_equivalence",
    "placebo_of_profile",
    "robustness_value",
    "signed_rank_bounds",
    "simulated_confounder",
    "systematic_error",
]
