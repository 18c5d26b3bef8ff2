"""Synthetic difference-in-differences and synthetic control: see :mod:`evalkit.did.synthetic.estimator`."""

from evalkit.did.synthetic.estimator import SyntheticDiD, synthetic_did

__all__ = ["SyntheticDiD", "synthetic_did"]
