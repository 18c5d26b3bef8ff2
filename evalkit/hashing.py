"""Keyed hashes: random-looking numbers that depend on the seed and on ids, never on the order of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Hash = NDArray[np.uint64]


def hash_ids(seed: int, ids: Iterable[str]) -> Hash:
    """One 64-bit hash an id (BLAKE2b keyed with the seed)."""
    key = str(seed).encode()
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8, key=key).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mix(hashes: Hash, numbers: ArrayLike) -> Hash:
    """Hashes of (hash, number) pairs: the finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        z = hashes ^ (np.asarray(numbers).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1))
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def uniform(hashes: Hash) -> NDArray[np.float64]:
    """Numbers in [0, 1) from the upper 53 bits."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
