"""Keyed hashes: known to the bit, free of order, evenly spread."""

import numpy as np
from naive import keyed

from evalkit.hashing import hash_ids, mix, uniform
from evalkit.kernels.greedy import _mix

IDS = ["P000001", "é", "0012", "", "x" * 500]


def test_hash_is_blake2b_keyed_with_the_seed():
    for seed in (0, 1, 2**63 - 1):
        assert hash_ids(seed, IDS).tolist() == [keyed.hash_id(seed, i) for i in IDS]


def test_known_values_do_not_change():
    """Results of finished studies hang on these numbers."""
    assert hash_ids(20260101, ["P1"]).tolist() == [7134842957154100257]
    assert mix(hash_ids(20260101, ["P1"]), 3).tolist() == [14298689820494569557]


def test_mix_and_its_kernel_twin_agree_with_plain_integers():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 2**64, 200, dtype=np.uint64)
    b = rng.integers(0, 2**64, 200, dtype=np.uint64)
    expected = [keyed.mix(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    assert mix(a, b).tolist() == expected
    assert [int(_mix(x, y)) for x, y in zip(a, b, strict=True)] == expected
    assert mix(a, np.arange(200)).tolist() == [keyed.mix(int(x), i) for i, x in enumerate(a)]


def test_order_and_company_change_nothing():
    one = hash_ids(7, IDS)
    assert hash_ids(7, IDS[::-1]).tolist() == one[::-1].tolist()
    assert hash_ids(7, IDS[1:]).tolist() == one[1:].tolist()
    assert hash_ids(8, IDS).tolist() != one.tolist()


def test_uniform_is_even_in_each_id_and_month():
    hashes = hash_ids(1, (f"P{i}" for i in range(20_000)))
    draws = np.array([uniform(mix(hashes, month)) for month in range(3)])
    assert draws.min() >= 0 and draws.max() < 1
    for row in draws:
        share = np.histogram(row, 20, (0, 1))[0] / len(row)
        assert np.abs(share - 0.05).max() < 0.007  # 4.5 standard errors
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.03
    assert np.abs(np.corrcoef(draws[0][:-1], draws[0][1:])[0, 1]) < 0.03
