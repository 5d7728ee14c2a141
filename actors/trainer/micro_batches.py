"""What a rank needs for a micro-batch, and what it reports of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actors.trainer.messages import RankReport
from renio_pipeline.objectives import Objective
from renio_pipeline.objectives.fetched import by_sample, sources
from renio_pipeline.types import TrainSample

if TYPE_CHECKING:  # Imported lazily: the driver imports this module and must not import torch.
    from renio_pipeline.models.student import MicroLoss


def fetch_payloads(samples: Sequence[TrainSample]) -> dict[int, Any]:
    """The samples' payloads by sample id, read in place from the object store."""
    import ray

    refs = list(dict.fromkeys(ref for s in samples for ref in sources(s.payload)))
    tables = dict(zip(refs, ray.get(refs), strict=True))
    return by_sample(samples, tables.__getitem__)


def report_of(samples: Sequence[TrainSample], micro: MicroLoss, objective: Objective) -> RankReport:
    """What one micro-batch adds to the rank's report."""
    import torch

    lengths = [len(s.response_ids) for s in samples]
    means = [float(part.mean()) if len(part) else 0.0 for part in micro.per_token.split(lengths)]
    generator = torch.cat([torch.tensor(s.student_logprobs) for s in samples]).to(micro.student_logprobs.device)
    own = torch.repeat_interleave(torch.tensor([not s.off_policy for s in samples]), torch.tensor(lengths))
    gap = (micro.student_logprobs - generator).abs()[own.to(micro.student_logprobs.device)]
    magnitude, after_pivotal = micro.magnitudes(samples)
    with objective.guarded("measured"):
        measured = objective.measured(samples, micro.student_logprobs)
    return RankReport(
        loss=float(micro.loss),
        divergence=sum(means),
        magnitude=magnitude,
        after_pivotal=after_pivotal,
        tokens=sum(s.tokens for s in samples),
        padded_tokens=micro.computed_tokens,
        mismatch_sum=float(gap.sum()),
        mismatch_max=float(gap.max()) if len(gap) else 0.0,
        response_tokens=len(gap),
        agreement=micro.agreement,
        measured=measured,
    )
