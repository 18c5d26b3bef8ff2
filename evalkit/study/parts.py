"""The pieces of a study file that can be read even while other pieces are faulty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from evalkit.study.lines import KeyPath
from evalkit.study.translate import Issue

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


class Parts:
    """Typed pieces of the raw file, with unknown keys left out; a piece that is absent or faulty is None."""

    def __init__(self, raw: dict[str, Any], found: Iterable[Issue]):
        unknown = {issue.path for issue in found if issue.code == "study.unknown_key"}
        self._raw = _without(raw, unknown)

    def raw(self, *path: str | int) -> Any:
        """The value as it stands in the file."""
        value: Any = self._raw
        for part in path:
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, tuple) and isinstance(part, int):
                value = value[part]
            else:
                return None
        return value

    def get(self, kind: type[T], *path: str | int) -> T | None:
        """The piece at a path, when it is sound."""
        value = self.raw(*path)
        if value is None:
            return None
        try:
            return TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError:
            return None

    def section(self, kind: type[Model], *path: str) -> Model | None:
        """As ``get``, with the defaults when the file does not have the section."""
        return self.get(kind, *path) if self.raw(*path) is not None else kind()

    def each(self, kind: type[T], name: str) -> list[tuple[KeyPath, T]]:
        """The sound ones among the ``[[name]]`` tables, with their paths."""
        items = self.raw(name)
        count = len(items) if isinstance(items, tuple) else 0
        read = (((name, index), self.get(kind, name, index)) for index in range(count))
        return [(path, item) for path, item in read if item is not None]


def _without(value: Any, unknown: set[KeyPath], at: KeyPath = ()) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if (*at, key) not in unknown}
        return {key: _without(item, unknown, (*at, key)) for key, item in kept.items()}
    if isinstance(value, tuple):
        return tuple(_without(item, unknown, (*at, index)) for index, item in enumerate(value))
    return value
