"""Packages that only some kinds of sources need."""

from __future__ import annotations

import importlib
from typing import Any

from evalkit.errors import DataError, Fault


def load(package: str, name: str, place: str) -> Any:
    """Import a package, or say that it is needed.

    Parameters
    ----------
    package:
        Name of the package.
    name, place:
        What is to be read with it and where the study says so.

    Raises
    ------
    DataError
        ``data.package_missing``.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        pass
    raise DataError(Fault("data.package_missing", {"file": name, "package": package}, place))
