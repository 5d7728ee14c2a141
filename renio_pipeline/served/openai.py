"""Completions with ``echo`` and ``logprobs``: the interface that OpenAI's completions have, and many servers with them."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from renio_pipeline.served.api import Api, Scoring
from renio_pipeline.served.faults import UnsuitableServerError, UnusableAnswerError
from renio_pipeline.served.tables import Entry, table
from renio_pipeline.types import TopK

_ID = re.compile(r"token_id:(\d+)")


class OpenAi(Api):
    """Tokens are texts, so that ids are known of the sampled tokens alone, unless a server writes ``token_id:N``."""

    examined_k: ClassVar[int] = 0  # their ids may not be known
    score_path: ClassVar[str] = "/v1/completions"

    def score_body(self, asked: Scoring) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "prompt": list(asked.ids), "max_tokens": 1, "echo": True}
        body |= {"logprobs": max(1, asked.k), "temperature": asked.temperature}
        return body | ({"return_tokens_as_token_ids": True} if asked.k else {})

    def read_score(self, answer: Any, asked: Scoring) -> TopK:
        found = answer["choices"][0]["logprobs"]
        values = found["token_logprobs"]
        if len(values) not in (len(asked.ids), len(asked.ids) + 1):  # with the one token that was written
            raise UnusableAnswerError(f"{len(values)} log-probabilities were returned for {len(asked.ids)} tokens")
        span = slice(asked.first, len(asked.ids))
        own: list[Entry] = [(i, float(value)) for i, value in zip(asked.ids[span], values[span], strict=True)]
        tops = [_entries(tops) for tops in found["top_logprobs"][span]] if asked.k else [[] for _ in own]
        return table(own, tops, asked.k, self.vocab_size)


def _entries(tops: dict[str, float]) -> list[Entry]:
    found = [(_ID.fullmatch(token), value) for token, value in tops.items()]
    if any(match is None for match, _ in found):
        raise UnsuitableServerError(
            "it names the likeliest tokens by their texts, from which their ids cannot be known; set objective.type=sampled, "
            "or the api that the server is of (vllm, sglang)"
        )
    return [(int(match[1]), float(value)) for match, value in found if match]
