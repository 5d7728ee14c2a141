"""What tests let the program under test do with the objects that they hand to it, and what they believe of its exceptions.

A program may use what it is given as a program would: call functions, read and set attributes of objects, iterate. It gets no
module, no frame, no file, and nothing with a leading underscore: no way into the interpreter that has the expected values.
"""

from __future__ import annotations

import builtins
import io
import operator
import sys
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

_TESTS = "__main__"  # the module of the tests
_FUNCTIONS = (types.FunctionType, types.MethodType)
_MODULES_OF_FUNCTIONS = ("math", "operator", "_operator", "cmath", "itertools", "functools", "_functools", "statistics")
_MODULES_OF_ERRORS = (
    "json.decoder", "decimal", "queue", "_queue", "zlib", "struct", "re", "asyncio.exceptions", "concurrent.futures._base",
    "csv", "_csv", "statistics", "socket", "subprocess", "binascii", "configparser", "graphlib", "zoneinfo._common",
    "dataclasses", "copy", "fractions", "ipaddress", "sqlite3", "shutil", "tarfile", "zipfile", "pickle", "_pickle",
    "email.errors", "http.client",
)  # fmt: skip
# Raised by the program, these would end the tests' own loops, or the tests.
_MISREAD = (StopIteration, StopAsyncIteration, GeneratorExit, KeyboardInterrupt)


class RemoteError(Exception):
    """An exception of the program that its tests must not misread, or a value of it that cannot cross."""


class ProgramExit(SystemExit):
    """The program called ``exit``. Its tests may expect that, but it does not end them."""


def named_builtin(value: Any) -> str | None:
    """The name by which a builtin crosses, to be found anew on the other side. None for all else."""
    name = getattr(value, "__name__", None) or {id(Ellipsis): "Ellipsis", id(NotImplemented): "NotImplemented"}.get(id(value))
    return name if isinstance(name, str) and getattr(builtins, name, None) is value else None


def named_in_library(value: Any) -> list[str] | None:
    """(module, name) of a function or an exception of the standard library. None for all else."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module.split(".")[0] not in sys.stdlib_module_names:
        return None
    error = isinstance(value, type) and issubclass(value, BaseException)
    if module not in (_MODULES_OF_ERRORS if error else _MODULES_OF_FUNCTIONS):
        return None
    return [module, name] if getattr(sys.modules.get(module), name, None) is value else None


def believed(error: type[BaseException]) -> type[BaseException]:
    """The exception class that tests see for one that the program raises."""
    if issubclass(error, _MISREAD):
        return RemoteError
    return ProgramExit if issubclass(error, SystemExit) else error


def found_builtin(name: Any) -> Any:
    """Raises ValueError: the program names a builtin that is neither a class nor a constant."""
    value = getattr(builtins, str(name), None)
    if isinstance(value, type) and issubclass(value, BaseException):
        return believed(value)
    if isinstance(value, type) or value is Ellipsis or value is NotImplemented:
        return value
    raise ValueError(f"no builtin {name} can cross")


def found_in_library(module: Any, name: Any) -> Any:
    """Raises ValueError: it is no exception of a module whose exceptions cross."""
    value = getattr(__import__(module, fromlist=["_"]), str(name), None) if module in _MODULES_OF_ERRORS else None
    if not (isinstance(value, type) and issubclass(value, BaseException)):
        raise ValueError(f"no {name} of {module} can cross")
    return believed(value)


def may_cross(value: Any) -> bool:
    """Whether tests hand an object to the program that is not plain data."""
    if isinstance(value, _FUNCTIONS):
        return value.__module__ == _TESTS and not _of_a_test_case(getattr(value, "__self__", None))
    if isinstance(value, type):
        return value.__module__ == _TESTS and not _of_a_test_case(value)
    if isinstance(value, types.BuiltinMethodType) and not isinstance(value.__self__, types.ModuleType):
        return type(value.__self__) in (list, dict, set, str, int, float, io.StringIO, io.BytesIO)
    if _is_mock(value) or isinstance(
        value, Iterator | io.StringIO | io.BytesIO | partial | operator.itemgetter | operator.attrgetter | BaseException
    ):
        return True
    return type(value).__module__ == _TESTS and not _of_a_test_case(value)


def may_use(value: Any, verb: str, name: str) -> bool:
    """Whether the program may read (``get``), change (``set``, ``delete``) or use (``special``) this of an object of the
    tests."""
    if _is_mock(value):
        return verb in ("get", "special") and not name.startswith("_") and not hasattr(type(value), name)
    if verb == "special":
        return isinstance(value, Iterator | io.StringIO | io.BytesIO | partial) or type(value).__module__ == _TESTS
    if name.startswith("_") or isinstance(value, _FUNCTIONS):
        return False
    if verb == "get":
        return type(value).__module__ == _TESTS or isinstance(value, type | io.StringIO | io.BytesIO | BaseException)
    return type(value).__module__ == _TESTS and not isinstance(value, type)


def _is_mock(value: Any) -> bool:
    mock = sys.modules.get("unittest.mock")
    return mock is not None and isinstance(value, mock.NonCallableMock)


def _of_a_test_case(value: Any) -> bool:
    unittest = sys.modules.get("unittest")
    case = getattr(unittest, "TestCase", None)
    cls = value if isinstance(value, type) else type(value)
    return case is not None and issubclass(cls, case)
