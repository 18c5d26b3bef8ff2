"""Hot loops compiled by numba: arrays in, arrays out; no input or output, no language, no randomness."""
