"""The whole report as sections, the answer first."""

from __future__ import annotations

from evalkit.report import account, answer, effect, people, subgroups
from evalkit.report.blocks import Section
from evalkit.report.view import View


def sections(view: View) -> tuple[Section, ...]:
    """Every section that has something to show, in reading order."""
    found = (
        answer.answer(view),
        effect.effects(view) if view.profiles else None,
        effect.lock_in(view),
        subgroups.subgroups(view),
        people.compared(view),
        people.alike(view),
        people.doubts(view),
        account.trust(view),
        account.method(view),
        people.described(view),
        account.checks(view),
        account.reproduce(view),
        account.disclosure(view),
    )
    shown = [section for section in found if section is not None]
    last = account.glossary(view, shown)
    return tuple([*shown, last] if last else shown)
