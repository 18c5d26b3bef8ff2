"""Difference-in-differences for exit rates: hazards in discrete time, chained to cumulated exit since exposure."""

from evalkit.did.hazards.at_risk import AtRisk, spells_at_risk
from evalkit.did.hazards.estimate import HazardEffects, HazardModel, hazard_did
from evalkit.did.hazards.leads import Leads, leads_test

__all__ = ["AtRisk", "HazardEffects", "HazardModel", "Leads", "hazard_did", "leads_test", "spells_at_risk"]
