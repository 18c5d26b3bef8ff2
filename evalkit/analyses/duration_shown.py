"""What a duration model shows beside its effects: who leaves when, multiples of rates, fit, what may be doubted."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.exhibits import Exhibit, Finding


@dataclass(frozen=True)
class Shown:
    """Exhibits and findings."""

    exhibits: tuple[Exhibit, ...]
    findings: tuple[Finding, ...]


def shown(sample, settings, outcomes, known, made, found):
    return Shown((), ())
