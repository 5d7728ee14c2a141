"""What a teacher of type http may be told, and what is refused with the key to change."""

from __future__ import annotations

from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.teachers.served_teachers import base_url
from renio_pipeline.preflight import prepare
from tests.unit.conftest import make_config

SERVED = {"model": "embedded:teacher", "type": "http", "urls": ["http://node1:8000/v1"]}


def config_of(teacher: dict[str, Any] | None = None, **changes: Any) -> Any:
    return make_config(teacher=SERVED | (teacher or {}), **changes)


def test_a_served_teacher_is_a_configuration() -> None:
    config = config_of({"urls": ["https://a:1", "http://[::1]:8000/"], "key_env": "KEY", "ca_file": "/ca.pem"})
    assert [base_url(url) for url in config.teacher.urls] == ["https://a:1", "http://[::1]:8000"]


@pytest.mark.parametrize(
    ("teacher", "changes", "text"),
    [
        ({"urls": []}, {}, r"teacher.urls: required by type http"),
        ({"urls": ["node1:8000"]}, {}, r"teacher.urls.0: 'node1:8000' is no URL of a server"),
        ({"urls": ["ftp://node1"]}, {}, r"teacher.urls.0: .* is no URL of a server"),
        ({"urls": ["http://node1:port"]}, {}, r"teacher.urls.0: no URL"),
        ({"urls": ["http://a:1", "http://a:1/v1/"]}, {}, r"teacher.urls: http://a:1 is named twice"),
        ({"ca_file": "/ca.pem"}, {}, r"teacher.ca_file: no URL begins with https"),
        ({"key_env": "a key"}, {}, r"teacher.key_env"),
        ({"type": "vllm"}, {}, r"teacher.urls is a key of teachers that are served elsewhere: set teacher.type=http"),
        ({"tensor_parallel": 2}, {}, r"teacher.tensor_parallel: a teacher of type http has its engine elsewhere"),
        ({"engine": {"max_num_seqs": 2}}, {}, r"teacher.engine: .* has its engine elsewhere"),
        ({"tokenizer": "own"}, {}, r"teacher.tokenizer: "),
        ({"adapter": "/adapter"}, {}, r"teacher.adapter: .* has its engine elsewhere"),
        ({"max_batch_tokens": 10}, {}, r"teacher.max_batch_tokens: .* has its engine elsewhere"),
        ({}, {"objective": {"type": "jsd"}}, r"teacher.type: objective jsd needs .* set objective.type=top_k_forward_kl or"),
        ({}, {"method": {"type": "opsd"}, "student": "embedded:teacher"}, r"teacher.type: in opsd .* set teacher.type=vllm"),
        ({}, {"pools": {"teacher": {"gpus": 1}}}, r"pools.teacher.gpus: .* only send requests; set it to 0"),
        ({"key_env": "K"}, {"pools": {"teacher": {"env": {"K": "x"}}}}, r"pools.teacher.env.K: a key in the configuration"),
        (
            {},
            {"deterministic": True, "generator": {"dtype": "float32"}, "trainer": {"dtype": "float32"}},
            r"teacher.type: servers elsewhere batch requests as they come, .* set deterministic=false",
        ),
        (
            {"api": "openai"},
            {"method": {"type": "opd", "privileged": True, "reason_first": True}},
            r"method.reason_first: the interface openai returns texts without their token ids; set teacher.api to vllm",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_key(teacher: dict[str, Any], changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config_of(teacher, **changes)


@pytest.mark.parametrize("url", ["http://me:hunter2@node1:8000", "http://hunter2@node1", "http://node1/?key=hunter2"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"teacher.urls.0: has a (user or password|query)") as refused:
        config_of({"urls": [url]})
    assert "hunter2" not in str(refused.value)


def test_several_teachers_may_be_of_different_types() -> None:
    config = make_config(
        teacher={},
        teachers={"a": SERVED, "b": {"model": "embedded:teacher"}},
        data={"sources": [{"task": "arithmetic", "teacher": teacher, "name": teacher} for teacher in "ab"]},
    )
    assert [teacher.type for teacher in config.all_teachers.values()] == ["http", "vllm"]
    with pytest.raises(
        ConfigError, match=r"teachers.a.api is a key of teachers that are served elsewhere: set teachers.a.type"
    ):
        make_config(teacher={}, teachers={"a": {"model": "embedded:teacher", "api": "sglang"}})


def test_only_the_tokenizer_and_the_sizes_of_the_model_are_read(tmp_path: Any) -> None:
    from tests.unit.conftest import DEMO

    for file in (DEMO / "teacher").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert prepare(config_of({"model": str(tmp_path)}, max_response_tokens=48)).vocab_size
    with pytest.raises(ConfigError, match=r"teacher.model: .*weights"):
        prepare(make_config(teacher={"model": str(tmp_path)}, max_response_tokens=48))
