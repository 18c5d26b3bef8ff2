"""The report: one HTML page a language, from the results document alone."""

from evalkit.report.html import render, write

__all__ = ["render", "write"]
