"""Finds and loads the C library, and checks that it is the one of this package.

The functions are called while holding Python's lock (``PyDLL``): each does little and bounded work
and never waits, and one machine is thereby never used by two threads at the same instant.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import sys

from . import _abi
from .errors import LibraryError, StatusError

_FILES = {"darwin": "libreplcore.dylib", "win32": "replcore.dll"}


def _path() -> str:
    given = os.environ.get("REPLCORE_LIBRARY")
    if given:
        return given
    return str(pathlib.Path(__file__).with_name(_FILES.get(sys.platform, "libreplcore.so")))


def _load() -> ctypes.PyDLL:
    path = _path()
    try:
        library = ctypes.PyDLL(path)
    except OSError as error:
        raise LibraryError(
            f"{path}: {error}; install a wheel of replcore for this platform, or name the library of "
            "`cargo build --release -p replcore-ffi` in REPLCORE_LIBRARY"
        ) from None
    for name, result, parameters in _abi.FUNCTIONS:
        function = getattr(library, name, None)
        if function is None:
            raise LibraryError(f"{path}: has no function {name}; it does not belong to this package")
        function.restype = result
        function.argtypes = parameters
    if library.replcore_abi() != _abi.ABI:
        raise LibraryError(
            f"{path}: has ABI {library.replcore_abi()} and this package is for {_abi.ABI}; "
            "install both from one version"
        )
    return library


library = _load()


def check(call: str, status: int) -> None:
    """Raises what a negative status means."""
    if status:
        raise StatusError(call, status, library.replcore_status_text(status).decode())


def version() -> str:
    """The version of the C library, such as ``0.1.0``."""
    return str(library.replcore_version().decode())
