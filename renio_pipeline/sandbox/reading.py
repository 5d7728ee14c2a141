"""Reads a row's tests: which format they have, and what they say."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from renio_pipeline.sandbox import given
from renio_pipeline.sandbox.assert_programs import read_program

_OF_SCRIPTS = {"stdin", "stdin_stdout"}  # tests of whole programs, as LiveCodeBench and others call them
_ENTRY = re.compile(r"(?:Solution\(\)\.)?([^\W\d]\w*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """Either ``asserts`` or ``cases``."""

    asserts: str | None = None  # a Python program
    names: tuple[str, ...] = ()  # what the asserts use from the program under test
    runs: tuple[str, ...] = ()  # functions of the asserts that are tests by name and called by nobody
    collect: bool = False  # whether pytest must collect and run them
    check: bool = False  # whether to call the asserts' ``check`` with ``entry``
    classes: tuple[str, ...] = ()  # those of the names that are classes
    compared: tuple[str, ...] = ()  # those of the classes that are only called and compared with constants
    assumable: tuple[str, ...] = ()  # those of the names that may stand for what programs of this kind assume
    lends: tuple[str, ...] = ()  # what the asserts define, which a program may use
    fixed: tuple[str, ...] = ()  # those of the names that are functions which the problem defines in full
    modules: tuple[str, ...] = ()  # that the asserts import, and that stand for the program
    entry: str | None = None  # the function under test, if it is named or called by cases
    cases: tuple[tuple[Any, Any], ...] = ()  # input and output text; with ``entry``, arguments and all correct results


@functools.lru_cache(maxsize=8)  # a row's responses are judged one after another, and long tests take seconds to read
def read_tests(text: str, problem: str = "") -> Tests:
    """Parse a row's tests.

    They are a Python program; or JSON: ``{"inputs": [...], "outputs": [...]}`` (with ``fn_name``: arguments and results),
    ``{"program": ...}``, MBPP's list of asserts or ``{"test_list": [...], "test_setup_code": ...}``, CodeContests'
    ``{"input": [...], "output": [...]}``, or LiveCodeBench's list of ``{"input": ..., "output": ...}``, each perhaps with
    ``fn_name``. A test program that defines ``check(candidate)`` without calling it tests the last
    function that the problem's text defines.

    Raises:
        ValueError: the text is none of these, or uses nothing of the program, or cannot be judged: the text says why.
        SyntaxError: the test program is not valid Python.
    """
    found = _normal(_parsed(text), problem)
    entry = found.get("fn_name") or None
    if entry is not None:
        named = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
        if named is None:
            raise ValueError(f'"fn_name" is {entry!r}; expected the name of a function')
        entry = named[1]
    if "program" in found:
        return Tests(**read_program(found["program"], entry, problem))
    inputs, outputs = found["inputs"], found["outputs"]
    if not (isinstance(inputs, list) and isinstance(outputs, list)):
        raise ValueError(f'"inputs" and "outputs" are {type(inputs).__name__} and {type(outputs).__name__}; expected lists')
    if not inputs or len(inputs) != len(outputs):
        raise ValueError(f"tests have {len(inputs)} inputs and {len(outputs)} outputs")
    read_in, read_out = (_arguments, _results) if entry else (_text, _text)
    return Tests(entry=entry, cases=tuple((read_in(i), read_out(o)) for i, o in zip(inputs, outputs, strict=True)))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"program": text}


def _normal(found: Any, problem: str) -> dict[str, Any]:
    """Any of the formats as ``program`` or as ``inputs`` and ``outputs``."""
    if isinstance(found, list) and found:
        if all(isinstance(one, str) for one in found):
            found = {"test_list": found}
        elif all(isinstance(one, dict) and {"input", "output"} <= one.keys() for one in found):
            return _cases(found, problem)
    if isinstance(found, dict) and isinstance(found.get("test_list"), list) and found["test_list"]:
        setup = [found.get("test_setup_code") or "", *(found.get("test_imports") or [])]
        return {"program": "\n".join(map(str, [*setup, *found["test_list"]]))}
    if isinstance(found, dict) and isinstance(found.get("input"), list) and isinstance(found.get("output"), list):
        found = {"inputs": found["input"], "outputs": found["output"]} | found
    if not isinstance(found, dict) or not ("program" in found or {"inputs", "outputs"} <= found.keys()):
        raise ValueError('tests are neither a Python program nor JSON with "inputs" and "outputs"')
    return found


def _cases(found: list[dict[str, Any]], problem: str) -> dict[str, Any]:
    cases = {"inputs": [one["input"] for one in found], "outputs": [one["output"] for one in found]}
    kinds = {str(kind) for one in found if (kind := one.get("testtype") or one.get("type"))}
    names = {str(one["fn_name"]) for one in found if one.get("fn_name")}
    if kinds <= _OF_SCRIPTS and not names:
        return cases
    name = names.pop() if names else given.last_function(problem)
    if names or kinds & _OF_SCRIPTS or name is None:
        what = (
            "are of several kinds" if names or kinds & _OF_SCRIPTS else "call a function that neither they nor the problem name"
        )
        raise ValueError(f'tests {what}; give {{"fn_name": ..., "inputs": [...], "outputs": [...]}}')
    return cases | {"fn_name": name}


def _text(value: Any) -> str:
    """Text, a number, or a list of them as lines."""
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        raise ValueError(f"{value!r:.100} among inputs and outputs; expected text, because there is no fn_name")
    text = "\n".join(map(str, parts))
    if text != text.encode(errors="replace").decode():
        raise ValueError(f"{text!r:.100} among inputs and outputs; half of a pair of surrogates is no character")
    return text


def _arguments(given: Any) -> list[Any]:
    """Arguments as a list, or as text with one JSON value per line."""
    if isinstance(given, list):
        return given
    try:
        return [json.loads(part) for part in given.splitlines()]
    except (ValueError, AttributeError):
        what = "a list of arguments, or text with one JSON value per line"
        raise ValueError(f"{given!r:.100} among inputs; expected {what}") from None


def _results(wanted: Any) -> list[Any]:
    """All accepted forms of a result: published tests wrap some results in text or in a list of one, and others not."""
    results = [wanted]
    if isinstance(wanted, str):
        with contextlib.suppress(ValueError):  # then it is plain text
            results.append(json.loads(wanted))
    return results + [found[0] for found in results if isinstance(found, list) and len(found) == 1]
