"""The student's forward pass: log-probabilities of response tokens, and a micro-batch's share of the step's loss.

Needs only torch; the model is whatever transformers loaded. Shapes: N response tokens of the micro-batch, in the order of
the samples; b rows, padded on the right to L tokens; V vocabulary entries; H hidden dimensions. Log-probabilities are in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from renio_pipeline.config.schema import Diagnostics
from renio_pipeline.loss import loss_magnitudes
from renio_pipeline.models import packed_attention
from renio_pipeline.models.batching import area, one_row, pack, unpacked
from renio_pipeline.models.heads import head_of, logit_settings
from renio_pipeline.objectives.agreement import Agreement
from renio_pipeline.objectives.agreement_sums import and_agreement, read
from renio_pipeline.objectives.base import HeadFn, MicroBatch, Objective, TeacherHead
from renio_pipeline.objectives.projection import Head, token_logprobs
from renio_pipeline.types import TrainSample

NOTHING = Agreement()
Layout = Callable[[Sequence[TrainSample]], list[list[TrainSample]]]  # rows of samples: one of `batching`'s


class TokenLogits(nn.Module):
    """Wraps a causal language model and computes logits at chosen positions only, so that [b, L, V] is never in memory."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm: Any = lm
        turn_off_dropout(lm)
        run_under_head(lm)

    def forward(self, input_ids: Tensor, position_ids: Tensor | None, positions: Tensor, head_fn: HeadFn | None = None) -> Any:
        """[b, L] ids, [N] flat positions in b·L -> [N, rows] logits, or what ``head_fn`` makes of the [N, H] hidden states.

        ``position_ids`` [b, L] restart at 0 with each sequence of a row, which confines attention to the sequence; None if
        every row is one sequence. Padding is on the right, where causal attention does not look.
        """
        hidden = packed_attention.states(self.lm, input_ids, position_ids)
        head = self.lm.get_output_embeddings()
        chosen = hidden.flatten(0, 1)[positions].to(head.weight.dtype)  # some models keep their residual stream in fp32
        if head_fn is not None:
            return head(chosen, head_fn)
        logits = head(chosen)
        scale, cap = logit_settings(self.lm.config.get_text_config())
        return (logits if cap is None else torch.tanh(logits / cap) * cap) * scale


def turn_off_dropout(lm: Any) -> None:
    """Make a model in training mode compute what the generator computes, whose samples and log-probabilities it is given.

    Some architectures drop out a tenth by default (GPT-2). The model's configuration, which is saved with it, stays as it is.
    """
    for module in lm.modules():
        own = "dropout" in type(module).__name__.lower()
        for name, value in vars(module).items():  # attributes such as ``attention_dropout`` are passed to functions
            if isinstance(value, float) and ("drop" in name or (own and name == "p")):
                setattr(module, name, 0.0)


def run_under_head(lm: Any) -> None:
    """Make the output head's forward run a function of hidden states and head, if it is given one.

    ZeRO 3 gathers a module's parameters around that module's forward and backward, so whatever needs the whole head must run
    inside them.
    """
    head = lm.get_output_embeddings()
    project = head.forward

    def forward(hidden: Tensor, head_fn: HeadFn | None = None) -> Any:
        return project(hidden) if head_fn is None else head_fn(hidden, head_of(lm))

    head.forward = forward


@dataclass(frozen=True)
class Collated:
    """A micro-batch as tensors."""

    input_ids: Tensor  # [b, L]
    position_ids: Tensor | None  # [b, L], restarting at 0 with each sequence; None if every row is one sequence
    positions: Tensor  # [N] flat index in b·L of the token before each response token
    targets: Tensor  # [N] the response tokens


def layout(model: Any, *, packing: bool) -> Layout:
    """The row layout for a TokenLogits or an engine around one. It never computes more tokens than ``plan`` assumed."""
    if not packing:
        return unpacked
    return one_row if packed_attention.used_by(getattr(model, "module", model).lm) else pack


def collate(samples: Sequence[TrainSample], device: torch.device | str = "cpu", *, lay: Layout = pack) -> Collated:
    """Lay samples in rows, padded on the right.

    Without samples, the batch is one token that enters no loss, so that every rank runs the same collectives.
    """
    rows = lay(samples)
    width = max(1, area(rows) // max(1, len(rows)))
    input_ids = torch.zeros(max(1, len(rows)), width, dtype=torch.long)
    position_ids = torch.arange(width).repeat(len(input_ids), 1)
    starts: dict[int, int] = {}
    for row, members in enumerate(rows):
        start = 0
        for s in members:
            end = start + s.tokens
            input_ids[row, start:end] = torch.cat([torch.as_tensor(s.prompt_ids), torch.as_tensor(s.response_ids)])
            position_ids[row, start:] = torch.arange(width - start)
            starts[s.sample_id], start = row * width + start, end
        position_ids[row, start:] = torch.arange(width - start)
    lengths = torch.tensor([len(s.response_ids) for s in samples], dtype=torch.long)
    first = torch.tensor([starts[s.sample_id] + len(s.prompt_ids) - 1 for s in samples], dtype=torch.long)
    within = torch.arange(int(lengths.sum())) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    positions = torch.repeat_interleave(first, lengths) + within
    targets = torch.cat([torch.empty(0, dtype=torch.long), *(torch.as_tensor(s.response_ids).long() for s in samples)])
    placed = None if lay is unpacked else position_ids
    parts = (input_ids, placed, positions, targets)
    return Collated(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class MicroLoss:
    """A micro-batch's share of the step's loss, and what was measured on the way."""

    loss: Tensor  # scalar, nats: the micro-batch's part of the global weighted loss
    per_token: Tensor  # [N] divergence in nats, detached
    student_logprobs: Tensor  # [N] log p_S of the sampled tokens, detached
    computed_tokens: int  # including padding
    by_token: bool = False  # the loss is a mean over the batch's tokens, not over its samples
    agreement: Agreement = NOTHING  # of student and teacher, at the tokens that ``diagnostics`` has looked at

    def magnitudes(self, samples: Sequence[TrainSample]) -> tuple[float, float]:
        """``loss_magnitudes`` of the micro-batch, which is of ``samples``."""
        lengths = torch.tensor([len(s.response_ids) for s in samples], dtype=torch.long)
        until = [s.until_pivotal for s in samples]
        return loss_magnitudes(self.per_token, [s.weight for s in samples], lengths, until, by_token=self.by_token)


def micro_batch_loss(
    model: nn.Module,
    samples: Sequence[TrainSample],
    payload: Mapping[int, Any],
    *,
    objective: Objective,
    batch_size: int,
    batch_tokens: int,
    temperature: float,
    vocab_size: int,
    device: torch.device | str = "cpu",
    teacher_head: TeacherHead | None = None,
    shared_tokens: Mapping[str, np.ndarray] | None = None,
    packing: bool = True,
    diagnostics: Diagnostics | None = None,
) -> MicroLoss:
    """Forward a micro-batch and sum its samples' shares of the step's loss.

    Args:
        model: a TokenLogits, or an engine around one.
        payload, batch_size, temperature, vocab_size, teacher_head, shared_tokens: see ``objectives.MicroBatch``.
        batch_tokens: response tokens of the step's global batch.
        objective: what the loss is.
        packing: several samples may share a row.
        diagnostics: what to measure of student and teacher besides. None: nothing.
    """
    batch = collate(samples, device, lay=layout(model, packing=packing))
    if not samples:
        # Backward must still run, or the other ranks would wait forever for this rank's gradients.
        nothing = model(batch.input_ids, batch.position_ids, batch.positions)
        none = nothing.new_empty(0, dtype=torch.float32)
        return MicroLoss(nothing.sum() * 0.0, none, none, 0)
    by_token = objective.normalization == "token"
    micro_batch = MicroBatch(
        samples=samples,
        payload=payload,
        targets=batch.targets,
        batch_size=batch_size,
        batch_tokens=batch_tokens if by_token else None,
        temperature=temperature,
        vocab_size=vocab_size,
        teacher_head=teacher_head,
        shared_tokens=shared_tokens or {},
    )
    head_fn = _guarded_head_fn(objective, micro_batch)
    inputs = (batch.input_ids, batch.position_ids, batch.positions)
    if diagnostics is None or not diagnostics.share:
        loss, per_token, sampled = model(*inputs, head_fn)
        return MicroLoss(loss, per_token, sampled, batch.input_ids.numel(), by_token)
    head_fn = and_agreement(head_fn, micro_batch, objective.payload, diagnostics)
    loss, per_token, sampled, sums = model(*inputs, head_fn)
    return MicroLoss(loss, per_token, sampled, batch.input_ids.numel(), by_token, read(sums))


def _guarded_head_fn(objective: Objective, micro_batch: MicroBatch) -> HeadFn:
    """The objective's function. What one of the user's own raises names its key, whenever it is called."""
    with objective.guarded("head_fn"):
        computed = objective.head_fn(micro_batch)

    def head_fn(hidden: Tensor, head: Head) -> Any:
        with objective.guarded("head_fn"):
            return computed(hidden, head)

    return head_fn


def sampled_logprobs(
    model: nn.Module,
    samples: Sequence[TrainSample],
    *,
    temperature: float,
    vocab_size: int,
    device: torch.device | str = "cpu",
    packing: bool = True,
) -> dict[int, np.ndarray]:
    """log p_S of each response's tokens under the current weights: [T] float32, nats, by sample id. No gradient."""
    batch = collate(samples, device, lay=layout(model, packing=packing))

    def head_fn(hidden: Tensor, head: Head) -> Tensor:
        return token_logprobs(hidden, batch.targets, head, temperature=temperature, vocab_size=vocab_size)[1][:, 0]

    with torch.no_grad():
        found = model(batch.input_ids, batch.position_ids, batch.positions, head_fn).float().cpu()
    parts = found.split([len(s.response_ids) for s in samples]) if samples else ()
    return {s.sample_id: part.numpy() for s, part in zip(samples, parts, strict=True)}


@torch.no_grad()
def token_losses(
    model: nn.Module, samples: Sequence[TrainSample], payload: Mapping[int, Any], **settings: Any
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """log p_S and the objective's divergence of each response's tokens: [T] float32 each, nats, by sample id. No gradient.

    ``settings``: those of ``micro_batch_loss``.
    """
    lengths = [len(s.response_ids) for s in samples]
    micro = micro_batch_loss(
        model, samples, payload, batch_size=max(1, len(samples)), batch_tokens=max(1, sum(lengths)), **settings
    )
    parts = (found.float().cpu().split(lengths) for found in (micro.student_logprobs, micro.per_token))
    return {s.sample_id: (one.numpy(), two.numpy()) for s, one, two in zip(samples, *parts, strict=True)}


def non_finite_samples(samples: Sequence[TrainSample], per_token_N: Tensor) -> list[int]:
    """The ids of the samples with a NaN or an infinity in ``per_token_N`` [N]."""
    lengths = [len(s.response_ids) for s in samples]
    parts = per_token_N.split(lengths) if lengths else ()
    return [s.sample_id for s, part in zip(samples, parts, strict=True) if not torch.isfinite(part).all()]
