"""Fields that published data sets have in another form: derived from what they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from renio_pipeline.config.layouts import PRESETS, Preset
from renio_pipeline.data.layouts.chat import chat_log

_FINAL = "####"  # before the final answer of GSM8K
# By preset: the columns that are needed, and what is derived of them.
_DERIVED: dict[Preset, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "chat": (("messages", "conversations"), chat_log),
    "gsm8k": (("answer",), lambda record: {"final answer": _after_mark(record.get("answer"))}),
    "humaneval": (
        ("test", "entry_point"),
        lambda record: {"tests": {"program": record.get("test"), "fn_name": record.get("entry_point")}},
    ),
    "mbpp": (
        ("test_list", "test_imports", "test_setup_code"),
        lambda record: {
            "tests": {
                "test_list": list(record.get("test_list") or []),
                "test_imports": list(record.get("test_imports") or []),
                "test_setup_code": record.get("test_setup_code") or "",
            }
        },
    ),
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


def _after_mark(answer: Any) -> str | None:
    """``18`` of ``... so she has 18 left.\\n#### 18``; None without the mark."""
    _, mark, final = str(answer).rpartition(_FINAL)
    return final.strip() if mark else None
