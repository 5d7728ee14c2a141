"""How far student and teacher agree on the likeliest tokens, and how sure each of them is: sums over response tokens.

Sums and counts alone, so that micro-batches and ranks add up to the figures of the whole batch, however it is split. What they
are summed from is in ``agreement_sums``, which needs torch. Such figures are what arXiv 2604.13016 follows distillation by.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Sums over the response tokens that were looked at. S: the student's k likeliest tokens there, T: the teacher's."""

    tokens: float = 0.0  # looked at
    student_entropy: float = 0.0  # nats
    compared: float = 0.0  # of the tokens looked at, those at which the teacher sent more than the sampled token's probability
    overlap: float = 0.0  # |S ∩ T| / k
    teacher_mass: float = 0.0  # the teacher's probability of S
    teacher_entropy: float = 0.0  # nats
    meeting: float = 0.0  # of those compared, the ones where S ∩ T is not empty
    advantage: float = 0.0  # nats: log p_T − log p_S, averaged over S ∩ T by p_S

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def metrics(self) -> dict[str, float]:
        """The registered metrics: means over tokens. What no token was looked at for is left out."""
        means = (
            ("entropy/student", self.student_entropy, self.tokens),
            ("entropy/teacher", self.teacher_entropy, self.compared),
            ("topk/overlap", self.overlap, self.compared),
            ("topk/teacher_mass", self.teacher_mass, self.compared),
            ("topk/advantage", self.advantage, self.meeting),
        )
        return {name: total / count for name, total, count in means if count}
