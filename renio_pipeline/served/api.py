"""The interface of a server: how a request is written, and how its answer is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from renio_pipeline.types import Continuation, ContinuationRequest, TopK

REGISTRY = {  # teacher.api -> the class
    "vllm": "renio_pipeline.served.vllm:Vllm",
    "sglang": "renio_pipeline.served.sglang:Sglang",
    "openai": "renio_pipeline.served.openai:OpenAi",
}


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A sequence to score."""

    ids: Sequence[int]  # prompt and response
    first: int  # the index of the first token whose log-probability is wanted, at least 1
    k: int  # how many of the likeliest tokens are wanted at each position
    temperature: float = 1.0  # a server may have it divide the logits: see ``examination.py``
    echo_ids: bool = False  # the answer is to have the ids that the server read, where the interface can


@dataclass(frozen=True)
class Api(ABC):
    """Reading raises one of ``faults.UNUSABLE`` for an answer that does not fit."""

    model: str
    vocab_size: int
    tokenize: ClassVar[str | None] = None  # path at which a server tokenizes a text
    examined_k: ClassVar[int] = 5  # the likeliest tokens that are looked at before a run, where none is wanted
    help_k: ClassVar[str] = "lower objective.k"  # where a server refuses so many of the likeliest tokens
    score_path: ClassVar[str]
    write_path: ClassVar[str] = ""  # empty: it cannot write

    @abstractmethod
    def score_body(self, asked: Scoring) -> dict[str, Any]:
        """The request that scores a sequence."""

    @abstractmethod
    def read_score(self, answer: Any, asked: Scoring) -> TopK:
        """[T, k + 1] of the T tokens from ``first`` on."""

    def read_echo(self, answer: Any) -> list[int] | None:
        """The ids that the server read; None: the interface does not say."""
        return None

    def write_body(self, asked: ContinuationRequest) -> dict[str, Any]:
        """The request that continues a prompt."""
        raise NotImplementedError

    def read_text(self, answer: Any) -> Continuation:
        """What was written."""
        raise NotImplementedError


def make_api(name: str, model: str, vocab_size: int) -> Api:
    """The interface of this name. ``model``: as the server calls it."""
    module, _, cls = REGISTRY[name].partition(":")
    made: Api = getattr(import_module(module), cls)(model, vocab_size)
    return made
