"""The guard against citizen service numbers (BSN): a column of them is refused, whatever its name.

A citizen service number has nine digits (eight when a leading zero was lost) and passes the 11-test: the digits
times 9, 8, 7, 6, 5, 4, 3, 2 and -1 add up to a multiple of eleven. One in eleven arbitrary numbers passes, so the
judgement is over the column: at least ``MINIMUM`` different values of eight or nine digits, of which at least
``SHARE`` pass. Five arbitrary numbers all pass with probability 6e-6.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MINIMUM = 5
"""Different eight- or nine-digit values below which a column is not judged."""

SHARE = 0.9
"""Share of those that must pass the 11-test for the column to be refused."""

_LONGEST = 24  # nine digits with blanks or dots between them


def passes(numbers: np.ndarray) -> np.ndarray:
    """Whether whole numbers (int64, at most nine digits) pass the 11-test; zero does not."""
    rest = numbers.astype(np.int64)
    total = -(rest % 10)
    for weight in range(2, 10):
        rest = rest // 10
        total += weight * (rest % 10)
    return (numbers > 0) & (total % 11 == 0)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    """The eight- and nine-digit values of a text column as numbers, repetitions included."""
    length = pc.binary_length(column)
    texts = column.filter(pc.and_(pc.greater_equal(length, 8), pc.less_equal(length, _LONGEST)))
    plain = pc.ascii_is_decimal(texts)
    rest = pc.unique(texts.filter(pc.invert(plain)))
    rest = rest.filter(pc.match_substring_regex(rest, r"^[\d.\s\x{00a0}\x{202f}]+$"))
    rest = pc.replace_substring_regex(rest, r"[.\s\x{00a0}\x{202f}]", "")
    texts = pa.chunked_array([*texts.filter(plain).chunks, rest], pa.string())
    length = pc.binary_length(texts)
    texts = texts.filter(pc.and_(pc.greater_equal(length, 8), pc.less_equal(length, 9)))
    return texts.cast(pa.int64()).to_numpy()


def _candidates(column: pa.ChunkedArray) -> np.ndarray:
    """The different eight- or nine-digit numbers of a column; a leading zero makes no difference."""
    kind = column.type
    if pa.types.is_string(kind):
        numbers = _texts(column)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.drop_null().to_numpy()
        values = values[(values >= 10**7) & (values < 10**9)]
        numbers = values[np.floor(values) == values].astype(np.int64)
    else:
        return np.empty(0, np.int64)
    numbers = np.sort(numbers)  # much faster than np.unique
    return numbers[np.diff(numbers, prepend=-1) != 0]


def is_bsn(column: pa.ChunkedArray) -> bool:
    """Whether a column holds citizen service numbers, written with or without blanks and dots.

    Text, whole numbers and floats are judged; other types cannot hold them. Values that are not eight or nine
    digits do not count, so a column that mixes citizen service numbers with other keys is refused too.
    """
    numbers = _candidates(column)
    return len(numbers) >= MINIMUM and float(passes(numbers).mean()) >= SHARE
