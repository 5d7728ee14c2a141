"""Conversations as chat programs and SFT data keep them: refused with what is missing, or read by the preset ``chat``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Source
from renio_pipeline.data.sources import TRAINING, load_rows
from renio_pipeline.types import Row
from tests.unit.data.test_layouts import WRITE

LOG = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2."},
]
SHARED = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2."}]


def rows_of(path: Path, **keys: Any) -> list[Row]:
    return list(load_rows(Source(path=str(path), **keys), optional=TRAINING))


def folder_of(folder: Path, *logs: Any) -> Path:
    (folder / "logs").mkdir()
    for i, log in enumerate(logs):
        (folder / "logs" / f"chat-{i}.json").write_text(json.dumps(log))
    return folder / "logs"


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_a_folder_of_chat_logs_is_refused_with_what_is_missing(name: str, tmp_path: Path) -> None:
    log = {name: LOG if name == "messages" else SHARED}
    with pytest.raises(ConfigError) as error:
        rows_of(folder_of(tmp_path, log, log))
    assert f"'{name}' is a chat log, which ends with the assistant's answer: what is missing is a message to answer" in str(
        error.value
    )
    assert "data.preset=chat asks the user's last message" in str(error.value)
    assert "row 1" in str(error.value)


def test_one_message_a_row_is_told_how_conversations_are_kept(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"this is one message: write each conversation into one row, as a list called 'messages'"
    ):
        rows_of(folder_of(tmp_path, LOG))


def test_a_field_of_messages_that_end_with_an_answer_names_the_preset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"row 1: field 'messages' ends with a message of assistant.*data.preset=chat"):
        rows_of(folder_of(tmp_path, {"messages": LOG}), fields={"problem": "messages"})


@pytest.mark.parametrize("write", WRITE)
def test_the_preset_asks_the_last_message_and_has_its_answer_as_the_solution(write: Any, tmp_path: Path) -> None:
    (row,) = rows_of(write(tmp_path, [{"messages": LOG}]), preset="chat")
    assert (row.problem, row.solution, row.answer) == ("1+1?", "2.", None)
    assert row.context == (("system", "Be brief."), ("user", "Hello."), ("assistant", "Yes?"))


@pytest.mark.parametrize("write", WRITE)
def test_shared_conversations_are_read_too(write: Any, tmp_path: Path) -> None:
    (row,) = rows_of(write(tmp_path, [{"conversations": SHARED}]), preset="chat")
    assert (row.problem, row.solution, row.context) == ("1+1?", "2.", ())


def test_what_is_after_the_answer_and_a_question_without_one(tmp_path: Path) -> None:
    logs = [{"messages": LOG[:4]}, {"messages": [*LOG, {"role": "tool", "content": "x"}]}, {"messages": [LOG[1], LOG[3]]}]
    unanswered, more, twice = rows_of(folder_of(tmp_path, *logs), preset="chat")
    assert (unanswered.problem, unanswered.solution) == ("1+1?", None)
    assert (more.problem, more.solution) == ("1+1?", "2.")
    assert (twice.problem, twice.context) == ("1+1?", (("user", "Hello."),))


def test_a_log_without_a_user_is_refused_by_the_preset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"row 1: .*ends with a message of assistant"):
        rows_of(folder_of(tmp_path, {"messages": [LOG[0], LOG[4]]}), preset="chat")
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigError, match=r"must be non-empty text; the row has 'text'"):
        rows_of(folder_of(tmp_path / "x", {"text": "User: hi"}), preset="chat")
