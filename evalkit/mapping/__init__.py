"""A proposal for the study file from unknown files: which table, which columns, which codes.

``propose`` looks at column names and at the kind of contents; ``as_toml`` writes the proposal; ``insert`` puts it into
a study file behind comment signs. No value from a row is shown, except codes of the columns taken for reasons and
types, and of those only the ones that occur often enough.
"""

from evalkit.mapping.propose import MINIMUM, Proposal, ProposedTable, propose
from evalkit.mapping.write import as_toml, insert

__all__ = ["MINIMUM", "Proposal", "ProposedTable", "as_toml", "insert", "propose"]
