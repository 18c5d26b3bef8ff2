"""The last look stops what may not leave, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from report_example import example_document

from evalkit.audit import audit
from evalkit.disclosure import protect
from evalkit.errors import DisclosureError

Json = dict[str, Any]


def flow(document: Json) -> None:
    document["flow"][0]["persons"] = 4


def month(document: Json) -> None:
    document["profiles"][0]["months"][2]["n_comparison"] = 9


def table(document: Json) -> None:
    found = next(e for e in document["exhibits"] if e["type"] == "table" and e["id"] == "risk_sets")
    found["rows"][3]["n_treated"] = 1


def checks(document: Json) -> None:
    document["checks"][0]["count"] = 2


def covariance(document: Json) -> None:
    document["profiles"][0]["vcov"] = [[1.0]]


def test_a_protected_document_passes() -> None:
    audit(protect(example_document()))


@pytest.mark.parametrize("plant", [flow, month, table, checks, covariance])
def test_what_may_not_leave_is_stopped(plant: Callable[[Json], None]) -> None:
    document = protect(example_document())
    plant(document)
    with pytest.raises(DisclosureError) as stopped:
        audit(document)
    assert stopped.value.exit_code == 5 and len(stopped.value.faults) == 1
    document["disclosure"]["profile"] = "open"
    audit(document)
