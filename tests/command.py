"""The command line: within the process of the tests, or as a new process, which takes seconds to start."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from evalkit import cli


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def within(*arguments: str | Path | int, **env: str) -> Done:
    """What ``evalkit`` does with the arguments, called through the function that the command calls.

    Streams, arguments, variables and what the command remembers are its own, and are put back afterwards.
    """
    written = [io.BytesIO(), io.BytesIO()]
    streams = [io.TextIOWrapper(each, "utf-8", newline="\n", write_through=True) for each in written]
    code = 0
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        for name, value in ({"EVALKIT_LANG": "en"} | env).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["evalkit", *map(str, arguments)])
        patch.setattr(cli, "console", cli._Console())
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
    out, err = (each.getvalue().decode("utf-8") for each in written)
    return Done(code, out, err)


def process(*arguments: str | Path | int, **env: str) -> Done:
    """The same in a new process, as a user starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "evalkit", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | {"EVALKIT_LANG": "en"} | env,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)
