"""Layouts: the columns and codes of Dutch sources (BUS, SRG, Polis, CBS microdata), ready to fill in a study.

``layouts()`` gives what each layout fills in, as ``layouts.toml`` says; ``shipped`` and ``read_lists`` give the code
lists, ours and those that a user edited; ``write_lists`` writes ours into a folder. What was verified, and where each
name and code comes from: ``docs/layouts.md`` and the lists themselves.
"""

from evalkit.layouts.known import Layout, layouts, of_table
from evalkit.layouts.lists import COLUMNS, Code, CodeList, list_names, read_list, read_lists, shipped, write_lists

__all__ = [
    "COLUMNS",
    "Code",
    "CodeList",
    "Layout",
    "layouts",
    "list_names",
    "of_table",
    "read_list",
    "read_lists",
    "shipped",
    "write_lists",
]
