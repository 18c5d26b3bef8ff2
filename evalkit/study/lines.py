"""On which line of a TOML text does a key stand: ``tomllib`` does not keep that.

The scanner runs over text that ``tomllib`` has already accepted, so it only needs to know where keys and values begin
and end, not whether they are right.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_STRINGS = (  # a long string may end in up to five quotes, of which the first two belong to it
    re.compile(r'"""(?:\\.|[^\\])*?"{3,5}(?!")', re.DOTALL),
    re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)


class Lines:
    """Line numbers by key path, as in ``("outcome", 1, "kind")``: indexes count from 0, lines from 1."""

    def __init__(self, text: str):
        scanner = _Scanner(text)
        self._lines, self._pairs = scanner.lines, scanner.pairs

    def find(self, path: KeyPath) -> int:
        """Line of the key, or of the nearest table around it that the text has; the whole file is line 1."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._lines:
                return self._lines[path[:end]]
        return 1

    def pair(self, path: KeyPath) -> tuple[int, int, int] | None:
        """Where in the text the key begins, where its value begins and where it ends; None when it is not there."""
        return self._pairs.get(path)


class _Scanner:
    def __init__(self, text: str):
        self.text = text
        self.pos = 0
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[KeyPath, int] = {}
        self.pairs: dict[KeyPath, tuple[int, int, int]] = {}
        self.last: dict[KeyPath, int] = {}  # index of the latest [[table]]
        self._document()

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.pos)
        assert match is not None  # the text is valid TOML and the patterns follow its grammar
        self.pos = match.end()
        return match.group()

    def _at(self, token: str) -> bool:
        return self.text.startswith(token, self.pos)

    def _note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, bisect_right(self.newlines, self.pos - 1) + 1)

    def _document(self) -> None:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self.pos < len(self.text):
            if self._at("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> KeyPath:
        brackets = 2 if self._at("[[") else 1
        start, self.pos = self.pos, self.pos + brackets
        keys = self._keys()
        end, self.pos = self.pos + brackets, start
        path: KeyPath = ()
        for depth, key in enumerate(keys, 1):
            path += (key,)
            self._note(path)
            if brackets == 2 and depth == len(keys):
                self.last[path] = self.last.get(path, -1) + 1
            if path in self.last:
                path += (self.last[path],)
                self._note(path)
        self.pos = end
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self.pos
        keys = self._keys()
        end, self.pos = self.pos, start
        path = table
        for key in keys:
            path += (key,)
            self._note(path)
        self.pos = end + 1  # past the "="
        self._skip(_BLANK)
        value = self.pos
        self._value(path)
        self.pairs[path] = (start, value, self.pos)

    def _keys(self) -> list[str]:
        """The parts of a dotted key; stops at what follows it."""
        keys = []
        while True:
            self._skip(_SPACE)
            if self._at('"') or self._at("'"):
                keys.append(tomllib.loads(f"key = {self._string()}")["key"])
            else:
                keys.append(self._skip(_BARE))
            self._skip(_SPACE)
            if not self._at("."):
                return keys
            self.pos += 1

    def _string(self) -> str:
        for pattern in _STRINGS:
            if pattern.match(self.text, self.pos):
                return self._skip(pattern)
        raise AssertionError("not a string")

    def _value(self, path: KeyPath) -> None:
        self._skip(_BLANK)
        if self._at("["):
            self._items(path)
        elif self._at("{"):
            self._inline(path)
        elif self._at('"') or self._at("'"):
            self._string()
        else:
            self._skip(_SCALAR)

    def _items(self, path: KeyPath) -> None:
        self.pos += 1
        index = 0
        self._skip(_BLANK)
        while not self._at("]"):
            self._note((*path, index))
            self._value((*path, index))
            index += 1
            self._separator()
        self.pos += 1

    def _inline(self, path: KeyPath) -> None:
        self.pos += 1
        self._skip(_BLANK)
        while not self._at("}"):
            self._pair(path)
            self._separator()
        self.pos += 1

    def _separator(self) -> None:
        self._skip(_BLANK)
        if self._at(","):
            self.pos += 1
            self._skip(_BLANK)
