"""Which files ``make quick`` leaves out as a whole: those that draw, write or run many registers."""

from __future__ import annotations

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
