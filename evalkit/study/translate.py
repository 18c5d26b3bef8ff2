"""From what pydantic finds wrong to our own codes: which key, what was expected, what is nearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from evalkit.study.lines import KeyPath

_WRONG_TYPE = {
    "int_type": "integer",
    "int_from_float": "integer",
    "int_parsing": "integer",
    "float_type": "number",
    "float_parsing": "number",
    "finite_number": "number",
    "string_type": "text",
    "bool_type": "boolean",
    "bool_parsing": "boolean",
    "date_type": "date",
    "date_from_datetime_inexact": "date",
    "date_from_datetime_parsing": "date",
    "date_parsing": "date",
    "tuple_type": "list",
    "list_type": "list",
    "dict_type": "table",
    "mapping_type": "table",
    "model_type": "table",
    "model_attributes_type": "table",
}
_BOUNDS = {
    "greater_than_equal": ("at_least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at_most", "le"),
    "less_than": ("below", "lt"),
}


class Issue(NamedTuple):
    """A fault before it has a line: the place is still a key path."""

    path: KeyPath
    code: str
    params: Mapping[str, Any]


def frozen(value: Any) -> Any:
    """A copy of a TOML value with tuples for arrays, so that nothing read can be changed later."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def shown(path: KeyPath) -> str:
    """A key path as the reader knows it: ``data.window.first``; indexes are left to the line number."""
    return ".".join(part for part in path if isinstance(part, str))


def where(path: KeyPath, root: str) -> str:
    """The table a key stands in: ``[time]``, ``[[outcome]]``, or the file itself."""
    if not path:
        return root
    return f"[[{shown(path)}]]" if isinstance(path[-1], int) else f"[{shown(path)}]"


def nearest(word: str, words: Mapping[str, Any] | list[str]) -> str:
    """The word most like the one given, even when it is not very like it."""
    return get_close_matches(word, list(words), n=1, cutoff=0)[0]


def issues(error: ValidationError, model: type[BaseModel], raw: Any, root: str) -> list[Issue]:
    """What pydantic found, each fault once, in our own codes.

    Parameters
    ----------
    error, model, raw:
        What came of validating ``raw`` (see ``frozen``) as ``model``.
    root:
        How to call the whole: the file name, or the table that holds a method's settings.
    """
    found = [
        _issue(details["type"], details["loc"], details.get("ctx", {}), details["msg"], model, raw, root)
        for details in error.errors(include_url=False, include_input=False)
        if not _miscounted(details["type"], details["loc"], details.get("ctx", {}), raw)
    ]
    found = _one_shape(found, raw)
    inner = {issue.path[:end] for issue in found for end in range(len(issue.path))}
    return list(  # of a value that may have several shapes, the shape it has is worth a word, the others are not
        {
            (issue.path, issue.code): issue
            for issue in found
            if not (issue.code.startswith("study.wrong_type.") and issue.path in inner)
        }.values()
    )


def _one_shape(found: list[Issue], raw: Any) -> list[Issue]:
    """Of a value that may be a word of a list or something else, what concerns the shape that it has."""
    listed = {issue.path for issue in found if issue.code == "study.not_allowed"}
    words = {path for path in listed if isinstance(_value(raw, path), str)}
    several = {issue.path for issue in found if issue.path in listed and issue.code != "study.not_allowed"}
    return [
        issue
        for issue in found
        if issue.path not in several or (issue.code == "study.not_allowed") == (issue.path in words)
    ]


def _miscounted(kind: str, loc: KeyPath, context: Mapping[str, Any], raw: Any) -> bool:
    """Pydantic counts sound items only, so a list of one faulty item is "too short" besides."""
    value = _value(raw, _present(loc, raw))
    return kind == "too_short" and isinstance(value, tuple | dict) and len(value) >= context["min_length"]


def _issue(
    kind: str, loc: KeyPath, context: Mapping[str, Any], message: str, model: type[BaseModel], raw: Any, root: str
) -> Issue:
    if kind == "missing":
        path = (*_present(loc[:-1], raw), loc[-1])
        if isinstance(loc[-1], int):
            return _length(path[:-1], len(get_args(annotation(model, path[:-1]))))
        return Issue(path, "study.missing_key", {"key": loc[-1], "where": where(path[:-1], root)})
    path = _present(loc, raw)
    key = shown(path)
    if kind == "extra_forbidden" or (kind == "literal_error" and loc[-1] == "[key]"):
        return unknown_key(path, _keys(model, path[:-1]), root)
    if kind in _WRONG_TYPE:
        return Issue(path, f"study.wrong_type.{_expected(kind, path, model, raw)}", {"key": key})
    if kind in _BOUNDS:
        code, bound = _BOUNDS[kind]
        return Issue(path, f"study.out_of_range.{code}", {"key": key, "limit": context[bound]})
    if kind == "literal_error":
        declared = _declared(model, path)
        choices = (option for option in _options(declared) if get_origin(option) is Literal)
        allowed = [choice for option in choices for choice in get_args(option)]
        return not_allowed(path, _value(raw, path), [str(choice) for choice in allowed])
    if kind == "string_too_short" or (kind == "too_short" and context.get("min_length") == 1):
        return Issue(path, "study.empty", {"key": key})
    if kind in ("too_short", "too_long"):
        return _length(path, context.get("max_length", context.get("min_length")))
    if kind == "string_pattern_mismatch":
        name = path[-1] if loc[-1] == "[key]" else _value(raw, path)
        return Issue(path, "study.bad_name", {"key": key, "name": name})
    if "." in kind:  # a method's own check, with its own sentence in the catalogue
        return Issue(path, kind, {"key": key, **context})
    return Issue(path, "study.invalid", {"key": key, "reason": message})


def unknown_key(path: KeyPath, valid: list[str], root: str) -> Issue:
    """A key that may not stand where it stands."""
    key = str(path[-1])
    return Issue(
        path,
        "study.unknown_key",
        {"key": key, "where": where(path[:-1], root), "nearest": nearest(key, valid), "valid": ", ".join(valid)},
    )


def not_allowed(path: KeyPath, value: Any, allowed: list[str]) -> Issue:
    """A value outside a fixed list."""
    return Issue(
        path,
        "study.not_allowed",
        {
            "key": shown(path),
            "value": str(value),
            "nearest": nearest(str(value), allowed),
            "allowed": ", ".join(allowed),
        },
    )


def _length(path: KeyPath, count: Any) -> Issue:
    return Issue(path, "study.wrong_length", {"key": shown(path), "count": count})


def _expected(kind: str, path: KeyPath, model: type[BaseModel], raw: Any) -> str:
    """``[outcome]`` where ``[[outcome]]`` belongs is worth a sentence of its own."""
    expected = _WRONG_TYPE[kind]
    if expected == "list" and isinstance(_value(raw, path), dict):
        item = _step(annotation(model, path), 0)
        return "tables" if isinstance(item, type) and issubclass(item, BaseModel) else "list"
    return expected


def _present(loc: KeyPath, raw: Any) -> KeyPath:
    """The parts of a pydantic location that exist in the file (it also names union members and ``[key]``)."""
    path: KeyPath = ()
    for part in loc:
        inside = part in raw if isinstance(raw, dict) else isinstance(part, int) and _fits(raw, part)
        if inside:
            path, raw = (*path, part), raw[part]
    return path


def _fits(raw: Any, index: int) -> bool:
    return isinstance(raw, tuple) and index < len(raw)


def _value(raw: Any, path: KeyPath) -> Any:
    for part in path:
        raw = raw[part]
    return raw


def annotation(model: Any, path: KeyPath) -> Any:
    """The type a model declares at a key path; None where it declares none."""
    return _plain(_declared(model, path))


def _declared(model: Any, path: KeyPath) -> Any:
    for part in path:
        model = _step(model, part)
    return model


def _step(declared: Any, part: str | int) -> Any:
    for option in _options(declared):
        if isinstance(option, type) and issubclass(option, BaseModel):
            for name, field in option.model_fields.items():
                if part == (field.alias or name):
                    return field.annotation
        arguments = get_args(option)
        if get_origin(option) in (tuple, list) and isinstance(part, int):
            fixed = Ellipsis not in arguments and get_origin(option) is tuple
            return arguments[part] if fixed and part < len(arguments) else arguments[0]
        if get_origin(option) is dict and isinstance(part, str):
            return arguments[1]
    return None


def _options(declared: Any) -> Iterator[Any]:
    """The members of a union without its None, each without its ``Annotated``."""
    if get_origin(declared) is Annotated:
        yield from _options(get_args(declared)[0])
    elif get_origin(declared) in (Union, UnionType):
        for option in get_args(declared):
            yield from _options(option)
    elif declared is not type(None):
        yield declared


def _plain(declared: Any) -> Any:
    return next(_options(declared), None)


def _keys(model: Any, path: KeyPath) -> list[str]:
    """The keys that may stand in the table at a path."""
    for part in path:
        model = _step(model, part)
    keys: list[str] = []
    for option in _options(model):
        if isinstance(option, type) and issubclass(option, BaseModel):
            keys += [field.alias or name for name, field in option.model_fields.items()]
        elif get_origin(option) is dict and get_origin(_plain(get_args(option)[0])) is Literal:
            keys += [str(key) for key in get_args(_plain(get_args(option)[0]))]
    return keys
