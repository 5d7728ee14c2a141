"""A hub that does not answer is found out by two requests; what its client does about one would take half a minute."""

from __future__ import annotations

from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from renio_pipeline.config import ConfigError
from renio_pipeline.models import hub
from renio_pipeline.models.info import inspect
from tests.fakes.hub import FakeHub, serving

NAME = "nobody/nothing"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses whose metadata were asked for, by huggingface_hub itself."""
    found: list[str] = []
    real = huggingface_hub.get_hf_file_metadata

    def metadata(url: str, **options: Any) -> Any:
        found.append(url)
        return real(url, **options)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PAUSE_SECONDS", 0.0)
    return found


def at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_hub_that_does_not_answer_is_an_error_after_two_requests(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    at("http://127.0.0.1:9", monkeypatch)

    def client(*given: object, **options: object) -> None:
        raise AssertionError("its client is asked all the same")

    monkeypatch.setattr("transformers.utils.cached_file", client)
    with pytest.raises(ConfigError) as refusal:
        inspect(NAME, "teacher.model")
    told = str(refusal.value)
    assert told.startswith(f"teacher.model: {NAME!r} cannot be read as a model (there is no such folder, so it was treated as")
    assert "http://127.0.0.1:9 does not answer (" in told
    assert told.endswith("look at the network and HF_ENDPOINT, or give a folder")
    assert asked == [f"http://127.0.0.1:9/{NAME}/resolve/main/config.json"] * hub.TRIES


def test_a_hub_that_refuses_has_answered(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FakeHub()) as fake:
        at(fake.url, monkeypatch)
        hub.reach(NAME, "config.json")
    assert len(asked) == len(fake.requests) == 1


def test_without_a_network_nothing_is_asked(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.reach(NAME, "config.json")
    assert asked == []


def test_what_is_cached_needs_no_hub(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: "/cache/config.json")
    hub.reach(NAME, "config.json")
    assert asked == []
