"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files so that a run killed half-way leaves none half-written: all aside first, then moved into place."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as aside:
        for number, content in enumerate(contents.values()):
            with open(Path(aside) / str(number), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for number, name in enumerate(contents):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(aside) / str(number), folder / name)
            paths.append(folder / name)
    return paths
