"""What was changed in the study file after results were known."""

from __future__ import annotations

import datetime as dt
import difflib

from evalkit.report.blocks import Block, Code, Heading, Text
from evalkit.report.view import View


def changed(view: View) -> bool:
    """Whether the study file is another one than that of the first run that showed results."""
    first = view.document.get("first_run")
    return first is not None and first["text"].splitlines() != view.document["study"]["text"].splitlines()


def changes(view: View) -> list[Block]:
    """When results were first known, and the study file of that run beside the present one, line by line."""
    if not changed(view):
        return []
    first, study = view.document["first_run"], view.document["study"]
    lines = difflib.unified_diff(
        first["text"].splitlines(),
        study["text"].splitlines(),
        f"{study['name']} {first['created']}",
        f"{study['name']} {view.document['created']}",
        lineterm="",
    )
    date = dt.date.fromisoformat(str(first["created"])[:10])
    return [
        Heading(view.say("report.changes.title")),
        Text(view.say("report.changes.text", date=date, sha256=first["sha256"])),
        Code("\n".join(lines)),
    ]
