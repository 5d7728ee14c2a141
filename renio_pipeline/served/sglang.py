"""SGLang's own interface, ``/generate`` (SGLang's documentation of sampling parameters and of its native interface)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from renio_pipeline.served.api import Api, Scoring
from renio_pipeline.served.faults import UnusableAnswerError
from renio_pipeline.served.tables import Entry, table
from renio_pipeline.types import Continuation, ContinuationRequest, TopK


class Sglang(Api):
    """Entries are lists [log-probability, token id, text]. The first position that is returned may have none."""

    score_path: ClassVar[str] = "/generate"
    write_path: ClassVar[str] = "/generate"

    def score_body(self, asked: Scoring) -> dict[str, Any]:
        body: dict[str, Any] = {"input_ids": list(asked.ids), "return_logprob": True, "top_logprobs_num": asked.k}
        body["logprob_start_len"] = asked.first - 1  # one earlier: of the first position no log-probability is returned
        return body | {"sampling_params": {"max_new_tokens": 1, "temperature": asked.temperature}}

    def read_score(self, answer: Any, asked: Scoring) -> TopK:
        tokens = asked.ids[asked.first :]
        meta = answer["meta_info"]
        found = meta["input_token_logprobs"][-len(tokens) :]
        if [entry[1] for entry in found] != list(tokens):
            raise UnusableAnswerError("the tokens of input_token_logprobs are not those that were sent")
        own: list[Entry] = [(int(i), float(logprob)) for logprob, i, *_ in found]
        tops = meta["input_top_logprobs"][-len(tokens) :] if asked.k else [[] for _ in tokens]
        return table(own, [[(int(i), float(p)) for p, i, *_ in entries] for entries in tops], asked.k, self.vocab_size)

    def write_body(self, asked: ContinuationRequest) -> dict[str, Any]:
        sampling = {
            "max_new_tokens": asked.max_tokens, "temperature": asked.temperature, "top_p": asked.top_p,
            "top_k": asked.top_k or -1, "stop_token_ids": list(asked.stop_token_ids), "sampling_seed": asked.seed,
        }  # fmt: skip
        return {"input_ids": asked.prompt_ids.tolist(), "sampling_params": sampling}

    def read_text(self, answer: Any) -> Continuation:
        reason = answer["meta_info"]["finish_reason"]["type"]
        if reason not in ("stop", "length"):
            raise UnusableAnswerError(f"a text ended with {reason!r}")
        return Continuation(token_ids=np.asarray(answer["output_ids"], np.int32), stop_reason=reason)
