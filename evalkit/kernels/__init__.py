"""Hot loops compiled by numba: arrays in, arrays out; no input or output, no language, no randomness.

Compiled code is kept inside the environment, so that a second run starts at once and the package folder stays clean.
"""

import os
import sys

if "NUMBA_CACHE_DIR" not in os.environ and sys.prefix != sys.base_prefix:
    os.environ["NUMBA_CACHE_DIR"] = os.path.join(sys.prefix, "var", "evalkit-numba")
