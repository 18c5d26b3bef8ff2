"""Every fault raised anywhere in the source has its sentences, in both languages, with the parameters it is given."""

from __future__ import annotations

import ast
import string
from pathlib import Path
from typing import NamedTuple

import pytest

import evalkit
from evalkit.errors import Fault
from evalkit.text import LANGUAGES, catalogue

SOURCE = Path(evalkit.__file__).parent
PARTS = ("say", "fix")


class Raised(NamedTuple):
    """A fault as the source builds it; ``params`` is None where they are no literal dict."""

    code: str
    params: frozenset[str] | None
    place: str


def codes_of(node: ast.expr) -> list[str]:
    """The literal codes of an expression: a text, or either branch of a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return codes_of(node.body) + codes_of(node.orelse)
    return []


def params_of(call: ast.Call) -> frozenset[str] | None:
    given = call.args[1] if len(call.args) > 1 else next((k.value for k in call.keywords if k.arg == "params"), None)
    if given is None:
        return frozenset()
    if isinstance(given, ast.Dict) and all(isinstance(key, ast.Constant) for key in given.keys):
        return frozenset(str(key.value) for key in given.keys if isinstance(key, ast.Constant))
    return None


def raised() -> list[Raised]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fault" and node.args:
                place = f"{path.relative_to(SOURCE)}:{node.lineno}"
                found += [Raised(code, params_of(node), place) for code in codes_of(node.args[0])]
    return found


FAULTS = raised()


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_the_source_is_found() -> None:
    codes = {fault.code for fault in FAULTS}
    assert {"effects.unlike_estimands", "design.no_controls", "design.no_treated", "sample.no_jobs"} <= codes
    assert sum(fault.params is not None for fault in FAULTS) > len(FAULTS) / 2


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{f.code}@{f.place}" for f in FAULTS])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_fault_has_its_sentences(fault: Raised, lang: str) -> None:
    for part in PARTS:
        sentence = catalogue(lang).get(f"fault.{fault.code}.{part}")
        assert sentence, f"{fault.place}: no sentence fault.{fault.code}.{part} in {lang}"
        if fault.params is not None:
            assert placeholders(sentence) <= fault.params, f"{fault.place}: {part} in {lang} asks for more"


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.params is not None], ids=lambda f: f"{f.code}@{f.place}")
def test_fault_can_be_said(fault: Raised) -> None:
    given: dict[str, object] = dict.fromkeys(fault.params or (), 3)
    for lang in LANGUAGES:
        text = Fault(fault.code, given).text(lang)
        assert text.endswith(f"[{fault.code}]")
        assert "{" not in text


def test_both_languages_say_the_same() -> None:
    dutch, english = (catalogue(lang) for lang in ("nl", "en"))
    keys = {key for key in dutch | english if key.startswith(("fault.effects.", "fault.design.", "fault.sample."))}
    assert len(keys) >= 40
    for key in keys:
        assert placeholders(dutch[key]) == placeholders(english[key]), key
        assert dutch[key] != english[key]


def test_no_sentence_of_effects_and_design_is_left_over() -> None:
    used = {fault.code for fault in FAULTS}
    owned = {key.split(".", 1)[1].rsplit(".", 1)[0] for key in catalogue("en") if key.startswith("fault.")}
    mine = {code for code in owned if code.startswith(("effects.", "design.", "sample."))}
    assert mine - used == set()
