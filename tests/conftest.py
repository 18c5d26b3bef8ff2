"""What ``make quick`` leaves out as a whole: files that draw, write or run many registers. And figures drawn once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

SLOW = {
    "test_changing_future", "test_changing_register", "test_checks_days", "test_checks_fuzz", "test_instrument_tables",
    "test_layout_keys", "test_line", "test_markers", "test_outcome_influence", "test_outcomes", "test_register",
    "test_report", "test_sample_arms", "test_shapes", "test_spells", "test_statements", "test_twin", "test_twin_files",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def drawn() -> dict[bytes, bytes]:
    """Figures drawn so far, by function and arguments."""
    return {}


@pytest.fixture
def figures_once(drawn: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about the words of a report: a figure whose every argument was seen before is not drawn again.

    The same numbers give the same bytes, as ``test_same_document_same_bytes`` proves with figures drawn anew.
    """
    from evalkit.report import figures

    def once(name: str, draw: Callable[..., bytes]) -> Callable[..., bytes]:
        def remembered(*args: Any, **more: Any) -> bytes:
            key = pickle.dumps((name, args, sorted(more.items())))
            if key not in drawn:
                drawn[key] = draw(*args, **more)
            return drawn[key]

        return remembered

    for name in ("areas", "bars", "dots", "intervals", "lines", "panels", "profile"):
        monkeypatch.setattr(figures, name, once(name, getattr(figures, name)))
