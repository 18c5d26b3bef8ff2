"""Matching on the chance of starting, as functions on arrays and frames.

>>> from evalkit.matching import match_frame
"""
