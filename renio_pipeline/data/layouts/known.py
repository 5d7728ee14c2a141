"""Fields that published data sets have in another form: derived from what they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from renio_pipeline.config.layouts import PRESETS, Preset
from renio_pipeline.data.layouts.chat import chat_log
from renio_pipeline.data.messages import read_list

_FINAL = "####"  # before the final answer of GSM8K
# By preset: the columns that are needed, and what is derived of them.
_DERIVED: dict[Preset, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "chat": (("messages", "conversations"), chat_log),
    "gsm8k": (("answer",), lambda record: {"final answer": _after_mark(record.get("answer"))}),
    "humaneval": (
        ("test", "entry_point"),
        lambda record: {"tests": {"program": record.get("test"), "fn_name": record.get("entry_point")}},
    ),
    "mbpp": (("prompt", "text", "test", "test_list", "test_imports", "test_setup_code"), lambda record: _mbpp(record)),
}


def columns_of(preset: Preset | None) -> tuple[str, ...]:
    """The columns that ``completed`` reads."""
    return _DERIVED[preset][0] if preset in _DERIVED else ()


def is_derived(name: str) -> bool:
    """Whether a field is none of the record's own."""
    return " " in name and any(name in PRESETS[preset].values() for preset in _DERIVED)


def completed(record: dict[str, Any], preset: Preset | None) -> dict[str, Any]:
    """The record, with the fields that are derived for its preset."""
    return record | _DERIVED[preset][1](record) if preset in _DERIVED else record


def _mbpp(record: Mapping[str, Any]) -> dict[str, Any]:
    """MBPP, sanitized or not, and MBPP+. Its problems do not say what the function is called: their first test does."""
    examples, problem = _listed(record.get("test_list")), record.get("prompt") or record.get("text")
    if isinstance(problem, str) and examples:
        problem = f"{problem}\n\nYour code should pass this test:\n{examples[0]}"
    imports, before = _listed(record.get("test_imports")), record.get("test_setup_code") or ""
    tests = record.get("test") or {"test_list": examples, "test_imports": imports, "test_setup_code": before}
    return {"prompt and a test": problem, "tests": tests}


def _listed(value: Any) -> list[Any]:
    """A list; MBPP+ has some as Python's text of one."""
    found = read_list(value) if isinstance(value, str) else value
    return list(found) if isinstance(found, (list, tuple)) else []


def _after_mark(answer: Any) -> str | None:
    """``18`` of ``... so she has 18 left.\\n#### 18``; None without the mark."""
    _, mark, final = str(answer).rpartition(_FINAL)
    return final.strip() if mark else None
