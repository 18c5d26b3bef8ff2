"""The register: administrative tables read, checked and given fixed names.

``read(study)`` reads the files of a study, ``from_frames(study, ...)`` takes pandas frames, ``read_table(study)``
reads an analysis-ready file, ``read_panel(study)`` a ready panel. See ``docs/register.md``.
"""

from evalkit.register.panel import PanelTable, read_panel
from evalkit.register.schema import COLUMNS, UNKNOWN, Check, Input, Quarantined
from evalkit.register.table import Table, read_table
from evalkit.register.tables import Register, from_frames, from_spark, read

__all__ = [
    "COLUMNS",
    "UNKNOWN",
    "Check",
    "Input",
    "PanelTable",
    "Quarantined",
    "Register",
    "Table",
    "from_frames",
    "from_spark",
    "read",
    "read_panel",
    "read_table",
]
