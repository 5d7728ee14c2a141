"""What a configuration's readers need to know of the weighting and the objective, whichever they are.

The classes themselves, which have the keys and compute, are in ``renio_pipeline.weightings`` and
``renio_pipeline.objectives``. Nothing here imports them.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from renio_pipeline.config.schema import Pivotal, Section

PayloadKind = Literal["none", "sampled", "top_k", "hidden"]


@dataclass(frozen=True)
class TeacherPayload:
    """What the teacher sends of each response token, beside the log-probability of the token itself.

    none: not even that, and there is no teacher. sampled: nothing more. top_k: ids and log-probabilities of the sampled token
    and of the K likeliest. hidden: the hidden state that predicts the token, after the final norm, which the trainer multiplies
    with the teacher's output head.
    """

    kind: PayloadKind
    top_k: int = 0  # K, of kind top_k

    def __post_init__(self) -> None:
        if (self.kind == "top_k") != (self.top_k > 0):
            raise ValueError(f"a payload has a top_k above 0 if and only if its kind is top_k, got {self.kind}, {self.top_k}")

    @property
    def scored(self) -> Literal["sampled", "top_k", "hidden"]:
        """The kind, of a run that has a teacher."""
        assert self.kind != "none", "there is no teacher"
        return self.kind

    def token_bytes(self, hidden_size: int, element_bytes: int) -> int:
        """Bytes of one response token.

        Args:
            hidden_size: width of the teacher's hidden states.
            element_bytes: bytes of one of their elements.
        """
        if self.kind == "hidden":
            return hidden_size * element_bytes
        return (self.top_k + 1) * 8 if self.kind == "top_k" else 0  # an int32 id and a float32 log-probability each


NO_TEACHER, SAMPLED, HIDDEN = TeacherPayload("none"), TeacherPayload("sampled"), TeacherPayload("hidden")


def top_k(k: int) -> TeacherPayload:
    """The payload of the teacher's ``k`` likeliest tokens."""
    return TeacherPayload("top_k", k)


class VariantSection(Section):
    """A section whose ``type`` chooses a class from a registry."""

    type: str

    @property
    def label(self) -> str:
        """Its name for people: the type, or the class's name where it is the user's own."""
        return self.type

    def guarded(self, method: str, *, refuses: bool = False) -> AbstractContextManager[object]:
        """The context in which a method of the variant is called: of the user's own, what it raises is told with its key.

        Args:
            refuses: the method may raise ValueError, which refuses the configuration.

        Raises:
            OwnClassError: a class of the user's own raised anything else.
        """
        return nullcontext()

    def check(self, config: Any) -> None:
        """Refuse a RunConfig that this variant cannot work with. Raises ValueError that names the key to change."""


class WeightingSection(VariantSection):
    """Base of ``renio_pipeline.weightings.Weighting``."""

    needs_verdicts: ClassVar[bool] = False  # True: every training row must have an answer that the task can verify
    without_verdicts: ClassVar[str] = "choose another weighting.type, such as uniform"  # where rows have none

    def wants_verdicts(self) -> bool:
        """``needs_verdicts``, where that depends on the keys."""
        return self.needs_verdicts

    @property
    def pivotal(self) -> Pivotal | None:
        """What counts as a pivotal token to this weighting; None: it knows no such tokens."""
        return None


class ObjectiveSection(VariantSection):
    """Base of ``renio_pipeline.objectives.Objective``."""

    mixes: ClassVar[bool] = False  # True: its payload may be a ``Mixture`` of several teachers'; without one it always may
    student_tokens_only: ClassVar[bool] = False  # True: it is an estimate over tokens that the student sampled
    reads_own_tokens: ClassVar[bool] = False  # True: its payload may be an ``Aligned`` of a teacher with another tokenizer

    @property
    @abstractmethod
    def payload(self) -> TeacherPayload:
        """What the teachers must send."""
