"""The first table of a paper: who are the two groups, before and after adjustment.

Numbers first (:class:`TableOne`, a value with every figure), words after (text, Markdown, HTML, CSV in Dutch or
English). Cells of few people are hidden on request, together with as many others as it takes that no sum gives them
back.
"""

from evalkit.table_one.hiding import hidden_cells
from evalkit.table_one.making import table_one
from evalkit.table_one.model import Cell, Row, TableOne

__all__ = ["Cell", "Row", "TableOne", "hidden_cells", "table_one"]
