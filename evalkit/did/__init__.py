"""Difference-in-differences: estimators, inference and credibility, on arrays and frames."""
