"""What tests let the program under test do with the objects that they hand to it, and what they believe of its exceptions.

A program may use what it is given as a program would: call functions, read and set attributes of objects, iterate. It gets no
module, no frame, no file, and nothing with a leading underscore: no way into the interpreter that has the expected values.
"""

from __future__ import annotations

import operator
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from functools import cmp_to_key, partial
from typing import Any

_TESTS = "__main__"  # the module of the tests
_FUNCTIONS = (types.FunctionType, types.MethodType)
_PLAIN = (list, dict, set, str, int, float, bytes, bytearray, deque, Counter, OrderedDict, defaultdict)
# (module, name) of classes of libraries whose objects a program may use by their public names.
_LIBRARY = (
    ("_io", "StringIO"), ("_io", "BytesIO"), ("types", "SimpleNamespace"), ("random", "Random"), ("queue", "Queue"),
    ("numpy.random._generator", "Generator"), ("numpy.random.mtrand", "RandomState"),
)  # fmt: skip
_ONCE = (
    Iterator, AsyncIterator, Coroutine, partial, operator.itemgetter, operator.attrgetter, operator.methodcaller,
    type(cmp_to_key(operator.sub)),
)  # fmt: skip
# Raised by the program, these would end loops or tasks of the tests quietly.
_MISREAD = (StopIteration, StopAsyncIteration, GeneratorExit)


class RemoteError(Exception):
    """An exception of the program that its tests must not misread, or a value of it that cannot cross."""


class ProgramExit(SystemExit):
    """The program called ``exit``. Its tests may expect that, but it does not end them."""


def believed(error: type[BaseException]) -> type[BaseException]:
    """The exception class that tests see for one that the program raises."""
    asyncio = sys.modules.get("asyncio.exceptions")
    if issubclass(error, _MISREAD) or (asyncio is not None and issubclass(error, asyncio.CancelledError)):
        return RemoteError
    return ProgramExit if issubclass(error, SystemExit) else error


def may_cross(value: Any) -> bool:
    """Whether tests hand an object to the program that is not plain data."""
    if isinstance(value, types.MethodType) and not _is_of_tests(value):
        return _in_library(value.__self__) and not value.__name__.startswith("_")
    if isinstance(value, types.BuiltinMethodType) and not isinstance(value.__self__, types.ModuleType):
        known = type(value.__self__) in _PLAIN or _in_library(value.__self__)
        return known and not value.__name__.startswith("_")
    if _is_mock(value) or isinstance(value, (*_ONCE, BaseException)) or _in_library(value):
        return True
    return _is_of_tests(value) and not _of_a_test_case(getattr(value, "__self__", value))


def may_use(value: Any, verb: str, name: str) -> bool:
    """Whether the program may read (``get``), change (``set``, ``delete``) or use (``special``) this of an object of the
    tests."""
    if _is_mock(value):
        return not name.startswith("_") and not hasattr(type(value), name)
    own = type(value).__module__ == _TESTS
    if verb == "special":
        return own or isinstance(value, _ONCE) or _in_library(value)
    if verb == "get" and name == "__dict__":  # its public part, see TestsEnd
        return own and not isinstance(value, _FUNCTIONS)
    if name.startswith("_") or isinstance(value, _FUNCTIONS):
        return False
    if verb == "get":
        own = own or isinstance(value, BaseException) or _in_library(value)
        return value.__module__ == _TESTS or issubclass(value, BaseException) if isinstance(value, type) else own
    return (own and not isinstance(value, type)) or type(value) is types.SimpleNamespace


def _in_library(value: Any) -> bool:
    return (type(value).__module__, type(value).__qualname__) in _LIBRARY


def _is_of_tests(value: Any) -> bool:
    """Whether it is a function, method or class of the tests, or an object of such a class."""
    return (value if isinstance(value, (*_FUNCTIONS, type)) else type(value)).__module__ == _TESTS


def _is_mock(value: Any) -> bool:
    mock = sys.modules.get("unittest.mock")
    return mock is not None and isinstance(value, mock.NonCallableMock)


def _of_a_test_case(value: Any) -> bool:
    unittest = sys.modules.get("unittest")
    case = getattr(unittest, "TestCase", None)
    cls = value if isinstance(value, type) else type(value)
    return case is not None and issubclass(cls, case)
