"""The student's forward pass: log-probabilities of response tokens, and a micro-batch's share of the step's loss.

Torch alone; the model is whatever transformers loaded. Shapes: N response tokens of the micro-batch, in the samples'
order; b sequences, padded on the right to L.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from renio_pipeline import packed_attention
from renio_pipeline.batching import area, one_row, pack, unpacked
from renio_pipeline.divergence import top_k_forward_kl, top_k_support
from renio_pipeline.full_vocabulary import FullVocabulary, Head, full_vocabulary_loss
from renio_pipeline.heads import head_of, logit_settings
from renio_pipeline.loss import sampled_token_loss, weighted_loss
from renio_pipeline.schema import Jsd, Objective, Sampled, TopKForwardKL
from renio_pipeline.scorer import from_numpy
from renio_pipeline.types import Hidden, TrainSample, Version

TeacherHead = Callable[[str, Version], Head]
HeadJob = Callable[[Tensor, Head], Any]  # what to do with [N, H] hidden states and the student's head
Layout = Callable[[Sequence[TrainSample]], list[list[TrainSample]]]  # rows of samples: one of `batching`'s


class TokenLogits(nn.Module):
    """Wraps a causal language model: logits at chosen positions only, so that [b, L, V] is never held."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm: Any = lm
        let_jobs_in(lm)

    def forward(self, input_ids: Tensor, position_ids: Tensor | None, positions: Tensor, job: HeadJob | None = None) -> Any:
        """[b, L] ids, [N] flat positions in b·L -> [N, rows] logits, or what ``job`` makes of the hidden states.

        position_ids [b, L]: they begin anew with each sequence of a row, and transformers keeps its attention to it. None: a
        sequence a row. Padding is on the right, where no token looks.
        """
        hidden = packed_attention.states(self.lm, input_ids, position_ids)
        chosen = hidden.flatten(0, 1)[positions]
        if job is not None:
            return self.lm.get_output_embeddings()(chosen, job)
        logits = self.lm.get_output_embeddings()(chosen)
        scale, cap = logit_settings(self.lm.config.get_text_config())
        return (logits if cap is None else torch.tanh(logits / cap) * cap) * scale


def let_jobs_in(lm: Any) -> None:
    """Make the output head's forward run a job, if it is given one, with the head's own parameters.

    ZeRO 3 gathers a module's parameters around that module's forward and backward: whatever needs the whole head has to run
    inside of them.
    """
    head = lm.get_output_embeddings()
    project = head.forward

    def forward(hidden: Tensor, job: HeadJob | None = None) -> Any:
        return project(hidden) if job is None else job(hidden, head_of(lm))

    head.forward = forward


def check_head(model: TokenLogits, device: torch.device) -> None:
    """Raise ValueError if this architecture does more after its last hidden state than project it."""
    ids = torch.arange(4, device=device)[None]
    with torch.no_grad():
        expected = model.lm(input_ids=ids, use_cache=False).logits[0].float()
        found = model(ids, None, torch.arange(4, device=device)).float()
    if not torch.allclose(expected, found, atol=1e-3 * max(1.0, float(expected.abs().max()))):
        raise ValueError(f"student: {type(model.lm).__name__} scales its logits in a way that this trainer does not know")


def check_packing(model: TokenLogits, device: torch.device) -> None:
    """Raise ValueError if a token of this architecture sees another sequence of its row."""
    ids, positions = torch.arange(8, device=device)[None], torch.arange(4, device=device)
    with torch.no_grad():
        alone = model(ids[:, 4:], None, positions).float()
        try:
            packed = model(ids, torch.cat([positions, positions])[None], positions + 4).float()
        except TypeError:  # it takes no positions
            packed = torch.full_like(alone, torch.nan)
    if not torch.allclose(alone, packed, atol=1e-2 * max(1.0, float(alone.abs().max()))):
        raise ValueError(
            f"student: {type(model.lm).__name__} mixes sequences that lie in one row; set trainer.packing to false, so that "
            "each has a row of its own"
        )


@dataclass(frozen=True)
class Collated:
    input_ids: Tensor  # [b, L]
    position_ids: Tensor | None  # [b, L], each sequence's from 0 on; None: a sequence a row
    positions: Tensor  # [N] where the token before each response token stands, in b·L
    targets: Tensor  # [N] the response tokens
    mask: Tensor  # [b, T] True on response tokens: row-major, its N true entries are in the order of `targets`


def layout(model: Any, *, packing: bool) -> Layout:
    """How samples lie for a TokenLogits, or an engine around one. Never more tokens than `plan` counted on."""
    if not packing:
        return unpacked
    return one_row if packed_attention.used_by(getattr(model, "module", model).lm) else pack


def collate(samples: Sequence[TrainSample], device: torch.device | str = "cpu", *, lay: Layout = pack) -> Collated:
    """Lay samples in rows, padded on the right. Without samples: one token that no loss looks at, so that every rank runs the
    same collectives.
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
    mask = torch.arange(int(lengths.max()) if len(samples) else 0)[None, :] < lengths[:, None]
    positions = (first[:, None] + torch.arange(mask.shape[1]))[mask]
    targets = torch.cat([torch.empty(0, dtype=torch.long), *(torch.as_tensor(s.response_ids).long() for s in samples)])
    placed = None if lay is unpacked else position_ids
    parts = (input_ids, placed, positions, targets, mask)
    return Collated(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]


def response_logprobs(logits: Tensor, *, temperature: float, vocab_size: int) -> Tensor:
    """[N, rows] logits -> [N, V] log-probabilities at the distillation temperature, over the first V rows, in fp32."""
    return torch.log_softmax(logits[:, :vocab_size].float() / temperature, dim=-1)


def per_row(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Spread [N] token values over [b, T]; padding is 0. Differentiable."""
    return values_N.new_zeros(mask_BT.shape).masked_scatter(mask_BT, values_N)


@dataclass(frozen=True)
class MicroLoss:
    """A micro-batch's share of the step, and what it measured."""

    loss: Tensor  # scalar: its part of the global weighted loss
    per_token: Tensor  # [N] divergence, detached
    student_logprobs: Tensor  # [N] of the sampled tokens, detached
    computed_tokens: int  # padding included


def micro_batch_loss(
    model: nn.Module,
    samples: Sequence[TrainSample],
    payload: Mapping[int, Any],
    *,
    objective: Objective,
    batch_size: int,
    temperature: float,
    vocab_size: int,
    device: torch.device | str = "cpu",
    teacher_head: TeacherHead | None = None,
    packing: bool = True,
) -> MicroLoss:
    """Forward a micro-batch and sum its samples' shares of the step's loss.

    Args:
        model: a TokenLogits, or an engine around one.
        payload: the teacher's top-k by sample id; unused by the sampled-token loss.
        batch_size: B of the whole step, over all ranks.
        teacher_head: the output head of a teacher and a version, for the full-vocabulary loss.
        packing: several samples may share a row.
    """
    batch = collate(samples, device, lay=layout(model, packing=packing))
    computed = batch.input_ids.numel()
    if samples and isinstance(objective, Jsd):
        assert teacher_head is not None
        job = _full_vocabulary_job(
            samples, payload, batch, teacher_head, objective=objective, batch_size=batch_size, temperature=temperature,
            vocab_size=vocab_size, device=device,
        )  # fmt: skip
        loss, per_token, sampled = model(batch.input_ids, batch.position_ids, batch.positions, job)
        return MicroLoss(loss, per_token, sampled, computed)
    logits = model(batch.input_ids, batch.position_ids, batch.positions)
    logprobs_NV = response_logprobs(logits, temperature=temperature, vocab_size=vocab_size)
    sampled_N = logprobs_NV.gather(1, batch.targets[:, None]).squeeze(1)
    if not samples:
        # Backward must still run, or the other ranks wait for this one's gradients for ever.
        return MicroLoss(logits.sum() * 0.0, sampled_N.detach(), sampled_N.detach(), 0)
    if isinstance(objective, TopKForwardKL):
        ids_NK, teacher_NK = _stack(samples, payload, device)
        per_token = top_k_forward_kl(
            logprobs_NV.gather(1, ids_NK), teacher_NK, top_k_support(ids_NK, tail=objective.tail),
            tail=objective.tail, entry_clip=objective.entry_clip, token_clip=objective.token_clip,
        )  # fmt: skip
    else:
        assert isinstance(objective, Sampled)
        per_token = _sampled_loss(samples, sampled_N, objective)
    weights = torch.tensor([s.weight for s in samples], dtype=torch.float32, device=device)
    loss = weighted_loss(per_row(per_token, batch.mask), batch.mask, weights, batch_size=batch_size)
    return MicroLoss(loss, per_token.detach(), sampled_N.detach(), computed)


def _full_vocabulary_job(
    samples: Sequence[TrainSample],
    payload: Mapping[int, Any],
    batch: Collated,
    teacher_head: TeacherHead,
    *,
    objective: Jsd,
    batch_size: int,
    temperature: float,
    vocab_size: int,
    device: torch.device | str,
) -> HeadJob:
    """The exact divergence of a micro-batch, to be run where the student's head is whole: teacher by teacher."""
    tables: list[Hidden] = [payload[s.sample_id] for s in samples]
    lengths = torch.tensor([len(s.response_ids) for s in samples])
    shares = [s.weight / (batch_size * max(1, len(s.response_ids))) for s in samples]
    coefficients = torch.repeat_interleave(torch.tensor(shares, dtype=torch.float32), lengths).to(device)
    owners = [(t.teacher, t.version) for t in tables]

    def of_teacher(owner: tuple[str, Version], hidden: Tensor, student: Head) -> tuple[Tensor, FullVocabulary]:
        own = torch.repeat_interleave(torch.tensor([o == owner for o in owners]), lengths).nonzero()[:, 0].to(device)
        states = torch.cat([from_numpy(t.values) for t, o in zip(tables, owners, strict=True) if o == owner]).to(device)
        teacher = teacher_head(*owner)
        found = full_vocabulary_loss(
            hidden if len(own) == len(hidden) else hidden[own], student, states.to(teacher.weight.dtype), teacher,
            batch.targets[own], coefficients[own], beta=objective.beta, temperature=temperature,
            entry_clip=objective.entry_clip, token_clip=objective.token_clip, vocab_size=vocab_size,
            chunk_tokens=objective.chunk_tokens,
        )  # fmt: skip
        return own, found

    def job(hidden: Tensor, student: Head) -> tuple[Tensor, Tensor, Tensor]:
        parts = [of_teacher(owner, hidden, student) for owner in dict.fromkeys(owners)]
        order = torch.cat([own for own, _ in parts]).argsort()
        per_token = torch.cat([found.per_token for _, found in parts])[order]
        sampled = torch.cat([found.student_logprobs for _, found in parts])[order]
        return torch.stack([found.loss for _, found in parts]).sum(), per_token, sampled

    return job


def _sampled_loss(samples: Sequence[TrainSample], sampled_N: Tensor, objective: Sampled) -> Tensor:
    """[N] losses of the sampled tokens, with what the generator said of them as the behaviour's, where a ratio corrects."""
    teacher_N = torch.cat([torch.as_tensor(s.teacher_logprobs) for s in samples]).to(sampled_N.device)
    if objective.importance_clip is None:
        return sampled_token_loss(sampled_N, teacher_N)
    behaviour_N = torch.cat([torch.as_tensor(s.student_logprobs) for s in samples]).to(sampled_N.device)
    return sampled_token_loss(sampled_N, teacher_N, behaviour_logprobs=behaviour_N, importance_clip=objective.importance_clip)


def _stack(samples: Sequence[TrainSample], payload: Mapping[int, Any], device: Any) -> tuple[Tensor, Tensor]:
    tables = [payload[s.sample_id] for s in samples]
    ids = torch.cat([torch.tensor(t.token_ids) for t in tables]).long().to(device)
    return ids, torch.cat([torch.tensor(t.logprobs) for t in tables]).to(device)


def non_finite_samples(samples: Sequence[TrainSample], per_token_N: Tensor) -> list[int]:
    """Ids of the samples that have a NaN or an infinity."""
    lengths = [len(s.response_ids) for s in samples]
    parts = per_token_N.split(lengths) if lengths else ()
    return [s.sample_id for s, part in zip(samples, parts, strict=True) if not torch.isfinite(part).all()]
