"""What ``agreement`` sums up, from the hidden states and heads that the loss has. Without gradient, at a share of the tokens.

The loss keeps no log-probabilities over the vocabulary, on a GPU it never even has them. They are made once more here, at few
tokens, so that no objective has to know of it: fused, in chunks or a user's own. Everything is made after the loss, whose
working memory is free by then and larger than this one's.

Shape legend: N response tokens of the micro-batch, R of them that are looked at, C of a chunk, V vocabulary entries, k
likeliest tokens, K those that a teacher sent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renio_pipeline.config.schema import Diagnostics
from renio_pipeline.config.sections import TeacherPayload
from renio_pipeline.divergence import top_k_support
from renio_pipeline.objectives.agreement import Agreement
from renio_pipeline.objectives.base import HeadFn, MicroBatch
from renio_pipeline.objectives.chunked import slices
from renio_pipeline.objectives.fetched import split
from renio_pipeline.objectives.payload import from_numpy
from renio_pipeline.objectives.projection import LOGIT_ELEMENTS, Head, factor, log_softmax, product
from renio_pipeline.types import TopK, TrainSample, Version

Sums = Tensor  # [fields of Agreement] float64


def and_agreement(head_fn: HeadFn, batch: MicroBatch, payload: TeacherPayload, diagnostics: Diagnostics) -> HeadFn:
    """``head_fn`` with the sums of ``Agreement`` behind what it returns, as a tensor [8] float64.

    The payload ``sampled`` says nothing of tokens that were not sampled, so the student's entropy is all there is to sum; so
    it is with ``top_k`` of a mixture of teachers, because the union of their top k is no top k, and of a teacher's own
    tokens. ``top_k`` of one teacher: the overlap is exact up to K, and k is at most K. The teacher's mass leaves out tokens
    of the student's that are not among the teacher's K, and its entropy counts all mass beyond them as one token: both are
    lower bounds. ``hidden``: all is exact.
    """
    rows_R = looked_at(batch.samples, diagnostics.share).to(batch.targets.device)

    def run(hidden: Tensor, student: Head) -> tuple[Any, ...]:
        found = head_fn(hidden, student)
        with torch.no_grad():
            return (*found, _sums(hidden.detach(), student, rows_R, batch, payload, diagnostics.top_k))

    return run


def read(sums: Tensor) -> Agreement:
    """``sums`` as ``and_agreement`` gave them."""
    return Agreement(**dict(zip(Agreement.__slots__, sums.tolist(), strict=True)))


def looked_at(samples: Sequence[TrainSample], share: float) -> Tensor:
    """Which tokens are looked at: [R] int64 rows of N, rising.

    A hash of sample id and position decides, so that another split of the batch looks at the same tokens.
    """
    chosen = [_hash(s.sample_id, len(s.response_ids)) < share for s in samples]
    return torch.from_numpy(np.flatnonzero(np.concatenate(chosen)) if chosen else np.empty(0, np.int64))


def _hash(sample_id: int, length: int) -> np.ndarray:
    """[length] float64 in [0, 1), by the finaliser of SplitMix64."""
    x = np.arange(length, dtype=np.uint64) + np.uint64((sample_id * 0x9E3779B97F4A7C15) % 2**64)
    x = (x + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xD1342543DE82EF95)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _sums(hidden: Tensor, student: Head, rows_R: Tensor, batch: MicroBatch, payload: TeacherPayload, k: int) -> Sums:
    total = torch.zeros(len(Agreement.__slots__), dtype=torch.float64, device=hidden.device)
    tables = _tables(rows_R, batch, payload)
    for at in slices(0, len(rows_R), max(1, LOGIT_ELEMENTS // batch.vocab_size)):
        log_p = _logprobs(hidden[rows_R[at]], student, batch)
        if tables:
            columns = _beside_top_k(log_p, *(table[at] for table in tables), k=min(k, payload.top_k))
        elif payload.kind == "hidden":
            log_q = _teacher_logprobs(rows_R[at], batch)
            columns = _beside_all(log_p, log_q, k=min(k, batch.vocab_size))
        else:
            columns = []
        ones = torch.ones(len(log_p), device=log_p.device)
        found = [ones, _entropy(log_p), *columns]
        total[: len(found)] += torch.stack(found).double().sum(dim=1)
    return total


def _logprobs(states: Tensor, head: Head, batch: MicroBatch) -> Tensor:
    weight = factor(head.weight[: batch.vocab_size])
    return log_softmax(product(states.to(weight.dtype), weight.T), head, batch.temperature)


def _tables(rows_R: Tensor, batch: MicroBatch, payload: TeacherPayload) -> list[Tensor]:
    """For the payload ``top_k`` of one teacher: its ids and log-probabilities at the rows, [R, K+1] each."""
    if payload.kind != "top_k":
        return []
    found = [batch.payload[s.sample_id] for s in batch.samples]
    if not all(isinstance(table, TopK) for table in found):
        return []
    sides = (torch.cat([torch.tensor(getattr(t, name)) for t in found]) for name in ("token_ids", "logprobs"))
    ids, logprobs = (side[rows_R.cpu()].to(rows_R.device) for side in sides)
    return [ids.long(), logprobs]


def _teacher_logprobs(rows_C: Tensor, batch: MicroBatch) -> Tensor:
    """For the payload ``hidden``: [C, V], each row by the head of its sample's teacher, or by the mixture of its teachers."""
    parts, weights = split([batch.payload[s.sample_id] for s in batch.samples])
    ids = [s.sample_id for s in batch.samples]
    alone = [_by_head(rows_C, replace(batch, payload=dict(zip(ids, own, strict=True)))) for own in parts]
    if len(alone) == 1:
        return alone[0]
    return torch.logsumexp(torch.stack([log_q + math.log(w) for log_q, w in zip(alone, weights, strict=True)]), dim=0)


def _by_head(rows_C: Tensor, batch: MicroBatch) -> Tensor:
    """[C, V], each row by the head of its sample's one teacher."""
    assert batch.teacher_head is not None
    ends = batch.lengths.cumsum(0)
    starts, rows = (ends - batch.lengths).numpy(), rows_C.cpu().numpy()
    sample_C = np.searchsorted(ends.numpy(), rows, side="right")
    states: dict[tuple[str, Version], list[Tensor]] = {}
    places: dict[tuple[str, Version], list[np.ndarray]] = {}
    for b in np.unique(sample_C):
        mine, table = np.flatnonzero(sample_C == b), batch.payload[batch.samples[b].sample_id]
        owner = (table.teacher, table.version)
        states.setdefault(owner, []).append(from_numpy(table.values[rows[mine] - starts[b]]))
        places.setdefault(owner, []).append(mine)
    parts = [_logprobs(torch.cat(own).to(rows_C.device), batch.teacher_head(*owner), batch) for owner, own in states.items()]
    order = np.concatenate([mine for owner in states for mine in places[owner]]).argsort()
    return torch.cat(parts)[torch.from_numpy(order).to(rows_C.device)]


def _beside_top_k(log_p: Tensor, ids: Tensor, log_q: Tensor, *, k: int) -> list[Tensor]:
    """Columns [C] of ``Agreement`` from ``compared`` on. ids, log_q [C, K+1]: column 0 of the sampled token."""
    own = log_p.topk(k, dim=-1)
    support = top_k_support(ids)
    same_CkK = (own.indices[:, :, None] == ids[:, None, :]) & support[:, None, :]
    mass = torch.where(same_CkK, log_q.exp()[:, None, :], 0.0).sum(dim=(1, 2))
    same_Ckk = own.indices[:, :, None] == ids[:, None, 1 : k + 1]
    both = same_Ckk.any(dim=-1)
    theirs = torch.where(same_Ckk, log_q[:, None, 1 : k + 1], -torch.inf).amax(dim=-1)
    kept = log_q.masked_fill(~support, -torch.inf)
    tail = (1 - kept.exp().sum(dim=-1)).clamp(min=0)
    entropy = _entropy(kept) + torch.special.entr(tail)
    return _columns(own.values, theirs, both, mass, entropy)


def _beside_all(log_p: Tensor, log_q: Tensor, *, k: int) -> list[Tensor]:
    """Columns [C] of ``Agreement`` from ``compared`` on. log_p, log_q [C, V]."""
    own, others = log_p.topk(k, dim=-1), log_q.topk(k, dim=-1)
    theirs = log_q.gather(1, own.indices)
    both = (own.indices[:, :, None] == others.indices[:, None, :]).any(dim=-1)
    return _columns(own.values, theirs, both, theirs.exp().sum(dim=-1), _entropy(log_q))


def _columns(log_p: Tensor, log_q: Tensor, both: Tensor, mass: Tensor, entropy: Tensor) -> list[Tensor]:
    """log_p, log_q [C, k] of the student's k likeliest tokens; both [C, k]: which are among the teacher's too."""
    both = both & ~log_p.isneginf() & ~log_q.isneginf()  # what a side excludes is no likely token of it
    share = log_p.exp().masked_fill(~both, 0.0)
    gain = (log_q - log_p).masked_fill(~both, 0.0)
    advantage = (share * gain).sum(dim=-1) / share.sum(dim=-1).clamp(min=torch.finfo(share.dtype).tiny)
    overlap = both.sum(dim=-1) / both.shape[1]
    return [torch.ones_like(mass), overlap, mass, entropy, both.any(dim=-1).to(mass.dtype), advantage]


def _entropy(logprobs: Tensor) -> Tensor:
    """[..., V] -> [...] in nats; 0 · log 0 = 0."""
    return torch.special.entr(logprobs.exp()).sum(dim=-1)
