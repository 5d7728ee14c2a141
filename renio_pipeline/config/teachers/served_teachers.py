"""What a teacher that is served elsewhere (``teacher.type: http``) can be asked for, and what its keys may say."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from renio_pipeline.config import schema
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.schema.served import Served
from renio_pipeline.config.sections import HIDDEN

ENGINE_KEYS = ("tensor_parallel", "separate_process", "engine", "adapter", "attention", "max_batch_tokens")


def check_served(config: RunConfig, name: str) -> None:
    """Raise ValueError if a teacher of type http is asked for what no server does, or another has keys of its type."""
    teacher, key = config.all_teachers[name], config.teacher_key(name)
    if teacher.type != "http":
        if teacher.type != "recorded" and (given := _given(teacher, Served.model_fields)) is not None:
            raise ValueError(f"{key}.{given} is a key of teachers that are served elsewhere: set {key}.type=http")
        return
    if (given := _given(teacher, ENGINE_KEYS)) is not None:
        raise ValueError(f"{key}.{given}: a teacher of type http has its engine elsewhere, where this is set; leave it out")
    if name in config.own_tokenizers:
        raise ValueError(
            f"{key}.tokenizer: a server of type http is examined and asked by the student's token ids; leave it out, or set "
            f"{key}.type=torch or vllm"
        )
    _check_method(config, key)
    _check_urls(teacher, key)
    _check_pool(config, name, teacher)


def _given(section: schema.Teacher, names: Any) -> str | None:
    """The first of these keys that has another value than its default."""
    default = schema.Teacher()
    return next((name for name in names if getattr(section, name) != getattr(default, name)), None)


def _check_method(config: RunConfig, key: str) -> None:
    if isinstance(config.method, schema.Opsd):
        raise ValueError(
            f"{key}.type: in opsd the teacher is the student itself, which no server has; set {key}.type=vllm, or "
            "method.type=opd"
        )
    if config.objective.payload == HIDDEN:
        raise ValueError(
            f"{key}.type: objective {config.objective.label} needs the teacher's whole distribution, and servers return "
            f"log-probabilities of a few tokens alone; set objective.type=top_k_forward_kl or sampled, or {key}.type=torch or "
            "vllm"
        )
    if config.deterministic:
        raise ValueError(
            f"{key}.type: servers elsewhere batch requests as they come, so digits do not repeat; set deterministic=false, or "
            f"{key}.type=vllm"
        )


def _check_urls(teacher: schema.Teacher, key: str) -> None:
    if not teacher.urls:
        raise ValueError(f"{key}.urls: required by type http; give at least one, for example [http://node1:8000]")
    for place, url in enumerate(teacher.urls):
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"{key}.urls.{place}: no URL ({error}); expected https://HOST:PORT") from None
        if parts.username is not None or parts.password is not None:  # the text must not repeat them
            raise ValueError(
                f"{key}.urls.{place}: has a user or password, which would be written to logs and files; leave it out, and name "
                f"the environment variable that has the key in {key}.key_env"
            )
        if parts.query or parts.fragment:
            raise ValueError(f"{key}.urls.{place}: has a query or fragment, which may be secret; give https://HOST:PORT alone")
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError(
                f"{key}.urls.{place}: {url!r} is no URL of a server; expected http://HOST:PORT or https://HOST:PORT"
            )
    bases = [base_url(url) for url in teacher.urls]
    if twice := next((url for url in bases if bases.count(url) > 1), None):
        raise ValueError(f"{key}.urls: {twice} is named twice; name each server once")
    if teacher.ca_file is not None and not any(url.startswith("https:") for url in bases):
        raise ValueError(f"{key}.ca_file: no URL begins with https, so no certificate is looked at; leave it out, or use https")


def _check_pool(config: RunConfig, name: str, teacher: schema.Teacher) -> None:
    pool = config.teacher_pools[name]
    section, key = config.pool(pool), f"pools.{config.pool_key(pool)}"
    if section.gpus:
        raise ValueError(f"{key}.gpus: the replicas of a teacher of type http only send requests; set it to 0")
    for where, env in ((key, section.env), *((f"pools.{n}", config.pool(n).env) for n in config.pool_names)):
        if teacher.key_env is not None and teacher.key_env in env:
            raise ValueError(
                f"{where}.env.{teacher.key_env}: a key in the configuration would be written to the run's files; leave it out, "
                "and export the variable where the run is started"
            )


def base_url(url: str) -> str:
    """A server's URL without what the interfaces' own paths begin with.

    >>> base_url("https://HOST:8000/v1/")
    'https://HOST:8000'
    """
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
