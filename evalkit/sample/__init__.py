"""The sample: risk sets, outcome paths and the flow of people, from a register or an analysis-ready table."""

from evalkit.sample.build import from_register
from evalkit.sample.checks import judge_sample
from evalkit.sample.describe import describe
from evalkit.sample.exposed import GroupSpells, group_spells
from evalkit.sample.flow import extend
from evalkit.sample.instruments import Episodes, Instruments
from evalkit.sample.panels import PanelData, PanelStep, from_panel
from evalkit.sample.table import from_table
from evalkit.sample.timed import Length, StartMonths, TimedSpells, timed_spells
from evalkit.sample.types import Entries, FlowRow, MultiArm, People, Sample

__all__ = [
    "Entries",
    "Episodes",
    "FlowRow",
    "GroupSpells",
    "Instruments",
    "Length",
    "MultiArm",
    "PanelData",
    "PanelStep",
    "People",
    "Sample",
    "StartMonths",
    "TimedSpells",
    "describe",
    "extend",
    "from_panel",
    "from_register",
    "from_table",
    "group_spells",
    "judge_sample",
    "timed_spells",
]
