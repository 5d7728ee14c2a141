"""vLLM's server: completions of token ids, with ``prompt_logprobs`` (vLLM 0.32, ``entrypoints/openai/completion``)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from renio_pipeline.served.api import Api, Scoring
from renio_pipeline.served.faults import UnusableAnswerError
from renio_pipeline.served.tables import Entry, table
from renio_pipeline.types import Continuation, ContinuationRequest, TopK

# What a model's own generation settings would otherwise change: a server takes them for what a request leaves out.
PLAIN = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class Vllm(Api):
    """Each position's entries are the k likeliest tokens and the prompt's own, keyed by token id."""

    tokenize: ClassVar[str | None] = "/tokenize"
    help_k: ClassVar[str] = "start the server with --max-logprobs {k} or more, or lower objective.k"
    score_path: ClassVar[str] = "/v1/completions"
    write_path: ClassVar[str] = "/v1/completions"

    def score_body(self, asked: Scoring) -> dict[str, Any]:
        body = {"model": self.model, "prompt": list(asked.ids), "max_tokens": 1, "prompt_logprobs": asked.k}
        body |= {"temperature": asked.temperature, "top_p": 1.0, "top_k": 0, **PLAIN}
        return body | ({"return_token_ids": True} if asked.echo_ids else {})

    def read_score(self, answer: Any, asked: Scoring) -> TopK:
        found = answer["choices"][0]["prompt_logprobs"]
        if len(found) != len(asked.ids):
            raise UnusableAnswerError(f"{len(found)} log-probabilities were returned for {len(asked.ids)} tokens")
        own: list[Entry] = []
        likeliest: list[list[Entry]] = []
        for token, entries in zip(asked.ids[asked.first :], found[asked.first :], strict=True):
            values = {int(i): float(entry["logprob"]) for i, entry in entries.items()}
            own.append((token, values[token]))
            likeliest.append(list(values.items()))
        return table(own, likeliest, asked.k, self.vocab_size)

    def read_echo(self, answer: Any) -> list[int] | None:
        found: list[int] | None = answer["choices"][0].get("prompt_token_ids")
        return found

    def write_body(self, asked: ContinuationRequest) -> dict[str, Any]:
        return {
            "model": self.model, "prompt": asked.prompt_ids.tolist(), "max_tokens": asked.max_tokens, "seed": asked.seed,
            "temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k,
            "stop_token_ids": list(asked.stop_token_ids), "return_token_ids": True, **PLAIN,
        }  # fmt: skip

    def read_text(self, answer: Any) -> Continuation:
        written = answer["choices"][0]
        if written["finish_reason"] not in ("stop", "length"):
            raise UnusableAnswerError(f"a text ended with {written['finish_reason']!r}")
        return Continuation(token_ids=np.asarray(written["token_ids"], np.int32), stop_reason=written["finish_reason"])
