"""One self-contained HTML page: no scripts, nothing fetched, figures inside."""

from __future__ import annotations

import base64
import datetime as dt
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from evalkit.files import write_files
from evalkit.report.answer import question
from evalkit.report.sections import sections
from evalkit.report.view import View


@cache
def _template() -> Template:
    source = files("evalkit.report").joinpath("page.html.j2").read_text("utf-8")
    environment = Environment(
        loader=DictLoader({"page": source}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment.get_template("page")


@cache
def _style() -> Markup:
    return Markup(files("evalkit.report").joinpath("style.css").read_text("utf-8"))


def render(document: Mapping[str, Any], lang: str) -> str:
    """The report on a results document as one HTML page.

    Parameters
    ----------
    document:
        The results document: what ``results.json`` holds, as a dict. Nothing else is read.
    lang:
        ``nl`` or ``en``.

    Returns
    -------
    str
        The page. The same document gives the same bytes.
    """
    view = View(document, lang)
    titles = view.protocol["title"]
    title = titles.get(lang) or next(iter(titles.values()), document["study"]["name"])
    return _template().render(
        lang=lang,
        say=view.say,
        style=_style(),
        title=title,
        question=question(view),
        sections=sections(view),
        created=dt.date.fromisoformat(str(document["created"])[:10]),
        evalkit=document["evalkit"],
    )


def write(document: Mapping[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``report.<lang>.html`` for every language of the study; a file appears whole or not at all.

    Parameters
    ----------
    document:
        The results document.
    folder:
        An existing folder.

    Returns
    -------
    list of Path
        The files written, in the order of the study's languages.
    """
    pages = {f"report.{lang}.html": render(document, lang) for lang in document["study"]["protocol"]["languages"]}
    return write_files(Path(folder), {name: page.encode() for name, page in pages.items()})
