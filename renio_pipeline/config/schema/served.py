"""The keys of a teacher that is served elsewhere: ``teacher.type: http``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from renio_pipeline.config.paths import UserPath
from renio_pipeline.config.schema.values import Section


class Served(Section):
    """How a teacher of type http is reached."""

    urls: tuple[str, ...] = Field(
        (), description="Of type http: the servers, each as https://HOST:PORT; all serve the same model."
    )
    api: Literal["vllm", "sglang", "openai"] = Field(
        "vllm", description="Of type http: which interface the servers have; openai: completions with echo and logprobs."
    )
    served_model: str | None = Field(
        None, description="Of type http: what the servers call the model; null: as `model`, of which the tokenizer is read."
    )
    key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Of type http: the environment variable that has the servers' key, sent as a bearer token; null: none.",
    )
    ca_file: UserPath | None = Field(
        None, description="Of type http: certificates of authorities that sign the servers'; null: those of the system."
    )
    concurrency: PositiveInt = Field(
        16, description="Of type http: the most requests that one replica of the pool has at one server."
    )
    timeout: PositiveFloat = Field(
        600.0, description="Of type http: seconds for one request, after which the sample goes to another server."
    )
