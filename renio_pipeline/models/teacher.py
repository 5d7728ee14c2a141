"""A teacher as a transformers forward pass: the torch engine. Runs without Ray.

Sequences are packed end to end, one row at a time, with positions that restart at 0. ``packed_attention`` confines attention
to each sequence; where it does not apply, transformers does (a block mask with sdpa, variable-length kernels with flash
attention). No padding is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from renio_pipeline.models import packed_attention
from renio_pipeline.models.adapters import merged
from renio_pipeline.models.end_tokens import exchanged
from renio_pipeline.models.files import end_ids, tokenizer_of
from renio_pipeline.models.heads import head_of
from renio_pipeline.models.self_checks import check_teacher
from renio_pipeline.models.writing import continue_prompts
from renio_pipeline.objectives.payload import to_numpy
from renio_pipeline.objectives.projection import token_logprobs
from renio_pipeline.types import (
    Continuation,
    ContinuationRequest,
    Hidden,
    Payload,
    ScoreRequest,
    ScorerSpec,
    TopK,
    Version,
)

# Tokens per row. With sdpa's mask, attention costs the square of the row; without a mask, long rows launch fewer kernels.
MASKED_TOKENS = {"cpu": 512, "cuda": 2048}
UNMASKED_TOKENS = {"cpu": 2048, "cuda": 16384}


class Scorer:
    """Holds the model. ``score`` may be called any number of times; ``load`` replaces the weights."""

    def __init__(self, spec: ScorerSpec) -> None:
        from transformers import AutoModelForCausalLM

        self._spec = spec
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(
            spec.model, dtype=getattr(torch, spec.dtype), attn_implementation=spec.attention
        )
        if spec.adapter is not None:
            model = merged(model, spec.adapter)
        self.model = model.eval().requires_grad_(False).to(self._device)
        packed_attention.use(self.model)
        check_teacher(self.model, self._device)
        masked = self.model.config.get_text_config()._attn_implementation in ("sdpa", "eager")
        self._row_tokens = (MASKED_TOKENS if masked else UNMASKED_TOKENS)[self._device]
        self.version = Version(0, 0)
        self._ends: set[int] | None = None  # the tokens that end what it writes; None: it has not written yet

    @torch.no_grad()
    def score(self, requests: Sequence[ScoreRequest]) -> tuple[list[np.ndarray], dict[int, Payload]]:
        """Score responses.

        Returns:
            log p_T of each response's tokens, [T] float32 in nats, in the order of the requests; and the payload by sample id
            (see ``renio_pipeline.types``).
        """
        logprobs: dict[int, np.ndarray] = {}
        payload: dict[int, Payload] = {}
        for row in fill_rows(requests, self._row_tokens):
            hidden = self._hidden(row)
            lengths = [len(r.response_ids) for r in row]
            read = [exchanged(r.response_ids, self._spec.end_tokens) for r in row]
            targets = torch.cat([torch.as_tensor(ids).long() for ids in read]).to(self._device)
            found = token_logprobs(
                hidden,
                targets,
                head_of(self.model),
                temperature=self._spec.temperature,
                vocab_size=self._spec.vocab_size,
                top_k=self._spec.top_k,
            )
            ids, values = (x.cpu() for x in found)
            kept = hidden.cpu() if self._spec.kind == "hidden" else hidden
            parts = (x.split(lengths) for x in (kept, values[:, 0].contiguous(), ids, values))
            for request, states, own, top_ids, top_values in zip(row, *parts, strict=True):
                logprobs[request.sample_id] = own.numpy()
                if self._spec.kind == "hidden":
                    payload[request.sample_id] = Hidden(values=to_numpy(states), version=self.version, teacher=self._spec.name)
                elif self._spec.kind == "top_k":
                    own_ids = exchanged(top_ids.int().numpy(), self._spec.end_tokens)
                    payload[request.sample_id] = TopK(token_ids=own_ids, logprobs=top_values.numpy())
        return [logprobs[r.sample_id] for r in requests], payload

    def write(self, requests: Sequence[ContinuationRequest]) -> list[Continuation]:
        """Continue prompts, of which each asks for one continuation. Raises as ``continue_prompts`` does."""
        if self._ends is None:
            self._ends = end_ids(self._spec.model, tokenizer_of(self._spec.model))
        return continue_prompts(self.model, requests, vocab_size=self._spec.vocab_size, end_ids=self._ends)

    def _hidden(self, row: Sequence[ScoreRequest]) -> Tensor:
        """[N, H'] the hidden states that predict each response token of a packed row."""
        ids, positions, keep, start = [], [], [], 0
        for r in row:
            response = exchanged(r.response_ids, self._spec.end_tokens)
            ids.append(torch.as_tensor(np.concatenate([r.prompt_ids, response])).long())
            positions.append(torch.arange(r.tokens))
            first = start + len(r.prompt_ids) - 1
            keep.append(torch.arange(first, first + len(r.response_ids)))
            start += r.tokens
        packed = (torch.cat(part)[None].to(self._device) for part in (ids, positions))
        return packed_attention.states(self.model, *packed)[0, torch.cat(keep).to(self._device)]

    def load(self, weights: Sequence[tuple[str, Tensor]]) -> None:
        """Copy new weights over the model's own. Raises ValueError for a name that the model does not have."""
        own = dict(self.model.named_parameters())
        unknown = [name for name, _ in weights if name not in own]
        if unknown:
            raise ValueError(f"the teacher has no parameters named {unknown[:3]}")
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)


def fill_rows(requests: Sequence[ScoreRequest], row_tokens: int) -> list[list[ScoreRequest]]:
    """Rows of whole sequences, in order, of at most ``row_tokens``; a longer sequence gets its own row."""
    rows: list[list[ScoreRequest]] = []
    used = 0
    for request in requests:
        if rows and used + request.tokens <= row_tokens:
            rows[-1].append(request)
            used += request.tokens
        else:
            rows.append([request])
            used = request.tokens
    return rows
