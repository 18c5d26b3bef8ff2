"""The guard against citizen service numbers."""

from __future__ import annotations

import datetime as dt
import time

import numpy as np
import pyarrow as pa
import pytest
from register_example import bsn

from evalkit.register.privacy import MINIMUM, is_bsn, passes

REAL = bsn(200)


def column(values) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def spoilt(number: str) -> str:
    """The same number with another last digit, which fails."""
    return number[:-1] + str((int(number[-1]) + 1) % 10)


def test_eleven_test_by_hand():
    # 1*9 + 2*8 + 3*7 + 4*6 + 5*5 + 6*4 + 7*3 + 8*2 - 2 = 154 = 14 * 11
    assert passes(np.array([123456782, 123456781, 0, 111222333, 10000008])).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: n,
        lambda n: f"{n[:4]}.{n[4:6]}.{n[6:]}",
        lambda n: f" {n[:3]} {n[3:6]} {n[6:]} ",
        lambda n: f"{n[:3]}\u00a0{n[3:]}",
        lambda n: n.lstrip("0"),
    ],
)
def test_ways_of_writing(shape):
    assert is_bsn(column([shape(number) for number in REAL]))


def test_numbers_and_floats():
    numbers = [int(number) for number in REAL]
    assert is_bsn(column(numbers))
    assert is_bsn(column([float(number) for number in numbers] + [None, float("nan"), 0.5]))


def test_ninety_percent_of_distinct_values():
    wrong = [spoilt(number) for number in REAL]
    assert is_bsn(column(REAL[:90] + wrong[90:100]))
    assert not is_bsn(column(REAL[:89] + wrong[89:100]))
    assert not is_bsn(column(REAL[:1] * 1000 + wrong[1:20]))  # repeating a value does not count


def test_few_values_are_not_judged():
    assert not is_bsn(column(REAL[: MINIMUM - 1] * 50))
    assert is_bsn(column(REAL[:MINIMUM]))


def test_a_mixed_column_is_refused():
    assert is_bsn(column(REAL[:50] + [f"A{i:08d}" for i in range(500)] + ["", None]))


def test_what_is_not_a_citizen_number():
    rng = np.random.default_rng(1)
    assert not is_bsn(column([f"{n:09d}" for n in rng.integers(10**7, 10**9, 500)]))
    assert not is_bsn(column([f"{d:02d}{m:02d}{y}" for d in range(1, 29) for m in range(1, 13) for y in (2015, 2016)]))
    assert not is_bsn(column([f"{d:02d}-01-2015" for d in range(1, 29)]))
    assert not is_bsn(column([f"X{number}" for number in REAL]))
    assert not is_bsn(column(["0" * 9] * 20))
    assert not is_bsn(column([None, None]).cast(pa.string()))
    assert not is_bsn(column([dt.date(2020, 1, 1)]))


def test_fast_enough():
    rng = np.random.default_rng(1)
    texts = [column([f"{n:09d}" for n in rng.integers(10**7, 10**9, 200_000)]) for _ in range(5)]
    texts += [column([f"{n:08x}" for n in rng.integers(0, 10**9, 200_000)]) for _ in range(5)]
    start = time.process_time()
    assert not any(is_bsn(text) for text in texts)
    assert time.process_time() - start < 3  # about half a second; slack for busy machines
