"""Reasons in ``missing``: codes without ``did.``, with sentences that need no parameters, in both languages."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

import evalkit.did
from evalkit.errors import Fault
from evalkit.text import LANGUAGES, catalogue

SOURCE = Path(evalkit.did.__file__).parent
PATHS = [path for path in sorted(SOURCE.rglob("*.py")) if path.name != "__init__.py"]
TREES = [ast.parse(path.read_text("utf-8")) for path in PATHS]
FAULTS = {key.removeprefix("fault.did.").rsplit(".", 1)[0] for key in catalogue("en") if key.startswith("fault.did.")}


def texts(node):
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def calls(name):
    found = [node for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in found if isinstance(node.func, ast.Name) and node.func.id == name]


CODES = sorted(set().union(*map(texts, TREES)) & FAULTS)
"""Faults that the source names without ``did.``: reasons of cells (a fault that is raised has it in front)."""


def test_reasons_are_found():
    some = {"imputation_none", "imputation_partly", "placebo_none", "placebo_no_before", "spillover_ring_empty"}
    assert some | {"regression_cell_empty", "regression_cohort_small", "cell_lone"} <= set(CODES)


def test_no_reason_has_the_prefix_and_all_have_sentences():
    written = set().union(*(texts(call) for call in calls("Missing")))
    assert len(written) > 5
    assert written <= FAULTS


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_sentences_of_reasons_need_no_parameters(code, lang):
    for part in ("say", "fix"):
        sentence = catalogue(lang)[f"fault.did.{code}.{part}"]
        assert not [name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None]
    assert "{" not in Fault(f"did.{code}").text(lang)
