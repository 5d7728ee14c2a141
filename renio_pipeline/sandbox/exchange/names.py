"""What crosses by its name, because both sides have it: builtins, functions and classes of libraries, modules, streams."""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from typing import Any

from renio_pipeline.sandbox.exchange import guard, values

_OWN = ("__main__", "program")  # the modules of the tests and of the program
_CONSTANTS = {id(Ellipsis): "Ellipsis", id(NotImplemented): "NotImplemented"}
_STREAMS = ("stdout", "stderr")
_MODULES_OF_ERRORS = (
    "json.decoder", "decimal", "queue", "_queue", "zlib", "struct", "re", "re._constants", "asyncio.exceptions", "_csv",
    "csv", "concurrent.futures._base", "statistics", "socket", "subprocess", "binascii", "configparser", "graphlib",
    "zoneinfo._common", "dataclasses", "copy", "fractions", "ipaddress", "sqlite3", "shutil", "tarfile", "zipfile", "pickle",
    "_pickle", "email.errors", "http.client", "urllib.error", "numpy.exceptions", "numpy.linalg", "pandas.errors",
)  # fmt: skip


def name_of(value: Any) -> list[str] | None:
    """[module, path in it] of what is found there. None for all else."""
    if id(value) in _CONSTANTS:
        return ["builtins", _CONSTANTS[id(value)]]
    if isinstance(value, types.ModuleType):
        return None if value.__name__ in _OWN else [value.__name__, ""]
    for stream in _STREAMS:
        if value is getattr(sys, stream):
            return ["sys", stream]
    owner = getattr(value, "__objclass__", value)  # of a method such as str.upper
    module, path = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(value, types.MethodType):  # of an object that the module hides, such as random.randint
        path = value.__name__
    if not isinstance(module, str) or not isinstance(path, str) or module in _OWN:
        return None
    try:
        found = _found(sys.modules[module], path)
    except (KeyError, AttributeError):
        return None
    return [module, path] if found is value or (isinstance(value, types.MethodType) and found == value) else None


def found(module: str, path: str) -> Any:
    """What has this name here. Raises ImportError or AttributeError: nothing has."""
    return _found(importlib.import_module(module), path)


def _found(target: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        target = getattr(target, part)
    return target


def found_for_tests(module: str, path: str) -> Any:
    """The same where a program names it: a class of data or of exceptions, nothing else.

    Raises:
        ValueError: the program names something else.
    """
    value = getattr(builtins, path, None) if module == "builtins" else None
    if (module in _MODULES_OF_ERRORS and "." not in path) or values.is_data_class(module, path):
        value = found(module, path)
    if isinstance(value, type) and issubclass(value, BaseException):
        return guard.believed(value)
    if isinstance(value, type) and (module == "builtins" or values.is_data_class(module, path)):
        return value
    if value is Ellipsis or value is NotImplemented:
        return value
    raise ValueError(f"no {path} of {module} can cross")


def is_known_to_tests(value: Any) -> bool:
    """Whether ``found_for_tests`` finds a value by its name."""
    if value is Ellipsis or value is NotImplemented:
        return True
    if not isinstance(value, type):
        return False
    if issubclass(value, BaseException):
        return value.__module__ in ("builtins", *_MODULES_OF_ERRORS) and "." not in value.__qualname__
    return value.__module__ == "builtins" or values.is_data_class(value.__module__, value.__qualname__)
