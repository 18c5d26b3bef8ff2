"""Keyed hashes in plain integers."""

import hashlib

MASK = 2**64 - 1


def hash_id(seed: int, id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8, key=str(seed).encode()).digest(), "little")


def mix(a: int, b: int) -> int:
    """Splitmix64's finaliser on a ^ (golden * b + 1) + golden."""
    golden = 0x9E3779B97F4A7C15
    z = ((a ^ ((b * golden + 1) & MASK)) + golden) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(a: int) -> float:
    return (a >> 11) * 2.0**-53
