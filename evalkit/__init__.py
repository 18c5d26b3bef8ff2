"""evalkit: what did a re-integration instrument do, by month since its start?"""

import os
import sys

__version__ = "0.1.0"

# Compiled kernels are kept inside the environment: a second run starts at once, the package folder stays clean.
if "NUMBA_CACHE_DIR" not in os.environ and sys.prefix != sys.base_prefix:
    os.environ["NUMBA_CACHE_DIR"] = os.path.join(sys.prefix, "var", "evalkit-numba")
