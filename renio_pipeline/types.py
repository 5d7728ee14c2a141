"""The messages that flow from prompts to weights. Frozen: a stage returns new ones, it never edits what it was given.

Shape legend, used as suffixes where an annotation cannot say it: B sequences, T response tokens (T_b of sequence b),
P prompt tokens, V vocabulary entries, K the teacher's top-k.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Verdict = Literal["correct", "incorrect", "unfinished"]
StopReason = Literal["stop", "length"]
OffPolicySource = Literal["solution", "teacher", "recorded"]  # who wrote a response that the student did not
EndTokens = tuple[
    tuple[int, int], ...
]  # pairs of ids that change places to a teacher: see ``renio_pipeline.models.end_tokens``
Times = tuple[float, float]  # when a sample was sent to a worker, and when its result came: the driver's time.perf_counter
NEVER: Times = (0.0, 0.0)
Messages = tuple[tuple[str, str], ...]  # (role, content) of each
Busy = dict[str, float]  # seconds of work so far, by worker


class Message:
    """Base of frozen dataclasses with slots that travel by the thousand: pickled as their values, a fifth of the usual time."""

    __slots__: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        return _remake, (kind, [getattr(self, name) for name in kind.__slots__])


def _remake(kind: type[Message], values: list[Any]) -> Message:
    made = object.__new__(kind)
    for name, value in zip(kind.__slots__, values, strict=True):
        object.__setattr__(made, name, value)
    return made


class Version(NamedTuple):
    """A weight version: the ``number``-th publication in its restart epoch (``renio_pipeline.loop.restart_epoch``).

    The epoch, ``incarnation`` in files, rises at every restart, so that no version is mistaken for one of an earlier epoch.
    """

    incarnation: int
    number: int

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """The inverse of ``str``. Raises ValueError for any other text."""
        incarnation, number = text.split(".")
        return cls(int(incarnation), int(number))


FIRST_VERSION = Version(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One problem of a task."""

    id: str
    problem: str
    answer: str | None = None  # the final answer alone, for the verifier
    solution: str | None = None  # the worked solution
    teacher: str | None = None  # which of several teachers scores its responses
    tests: str | None = None  # of a program: a Python program of asserts, or JSON of inputs and outputs
    source: str | None = None  # which of several sources it is of; its id then begins with that name and a slash
    context: Messages = ()  # the chat messages before the one that asks the problem
    teacher_prompt: Messages = ()  # what a teacher that is shown more than the student is asked instead; empty: the usual
    line: int | None = field(default=None, compare=False)  # where it stands in its file
    numbered: bool = field(default=False, compare=False)  # its id is its place, because its record has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One sample to be drawn: a row under a sample id that is unique in the run."""

    sample_id: int
    row: Row
    student_ids: np.ndarray  # [P] int32, what the student is conditioned on
    teacher_ids: np.ndarray  # [P'] int32, what the teacher is conditioned on


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What the student wrote after a prompt."""

    prompt: Prompt
    token_ids: np.ndarray  # [T] int32, the end token included when the response stopped by itself
    logprobs: np.ndarray  # [T] float32, log p_S of those tokens at the distillation temperature
    stop_reason: StopReason
    version: Version  # the weights that sampled its oldest token
    last_version: Version | None = None  # those that sampled its last one: newer, where a sync came in between
    replica: str = ""  # the generator that wrote it
    times: Times = NEVER
    off_policy: OffPolicySource | None = None  # not by the run's student: no version; logprobs are the trainer's, or recorded

    @property
    def sample_id(self) -> int:
        return self.prompt.sample_id

    @property
    def by_a_student(self) -> bool:
        """Whether a student wrote it, this run's or a recording's: it has its writer's log-probabilities, and is weighed."""
        return self.off_policy in (None, "recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest(Message):
    """One response for a teacher to score."""

    sample_id: int
    prompt_ids: np.ndarray  # [P'] int32, the teacher's own prompt
    response_ids: np.ndarray  # [T] int32

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuationRequest(Message):
    """A prompt that a teacher is asked to continue. Equal requests to equal weights get equal continuations."""

    prompt_ids: np.ndarray  # [P] int32
    max_tokens: int  # of one continuation; longer ones are cut
    seed: int  # of all n continuations, each of which is sampled with one of its own
    n: int = 1
    temperature: float = 1.0  # of sampling, whatever the distillation temperature is; 0: the likeliest token always
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    stop_token_ids: tuple[int, ...] = ()  # tokens that end a continuation, besides those that the teacher's own files name
    teacher: str | None = None  # which of several teachers

    def __post_init__(self) -> None:
        """Raises ValueError for a request that nothing can answer."""
        least = {"prompt_ids": (len(self.prompt_ids), 1), "max_tokens": (self.max_tokens, 1), "n": (self.n, 1)}
        for name, (given, at_least) in least.items():
            if given < at_least:
                raise ValueError(f"{name} of a request to a teacher must be at least {at_least}, not {given}")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(
                f"a teacher samples at a temperature from 0 (given: {self.temperature}), with top_p above 0 and up to 1 "
                f"({self.top_p}) and top_k from 0 ({self.top_k})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation(Message):
    """What a teacher wrote after a prompt."""

    token_ids: np.ndarray  # [T] int32, the end token included when it stopped by itself
    stop_reason: StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """The teacher's likeliest tokens. Column 0 is the sampled token, columns 1 to K are the top K in falling order."""

    token_ids: np.ndarray  # [T, K+1] int32
    logprobs: np.ndarray  # [T, K+1] float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """The teacher's states that predict a response's tokens: after the final norm, before the output head."""

    values: np.ndarray  # [T, H'] float32, or bfloat16's bits as uint16
    version: Version  # of the teacher: its head of that version makes logits of them
    teacher: str = ""  # its name, where there are several


Payload = TopK | Hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture(Message):
    """What several teachers sent of one rollout, whose probabilities are mixed."""

    parts: tuple[Any, ...]  # of each teacher, as in ``TeacherScores.payload``; once it is fetched, a Payload
    weights: tuple[float, ...]  # of each teacher; they sum to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned(Message):
    """What a teacher with another tokenizer sent of its own tokens, and which of them say something of the student's."""

    part: Any  # as in ``TeacherScores.payload``; once it is fetched, a TopK over the teacher's tokens [T', K+1]
    places: np.ndarray  # [T] int32, the teacher's token that is alone a span with this one of the student's; -1: none is
    teacher: str = ""  # its name, where there are several


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherScores:
    """What a teacher says of one rollout. The payload (a Payload per sample id) stays where the teacher put it."""

    sample_id: int
    logprobs: np.ndarray  # [T] float32, log p_T of the sampled tokens at the distillation temperature
    payload: Any = None  # a reference to {sample_id: Payload} in the object store, a Mixture or an Aligned of such, or None
    payload_bytes: int = 0
    replica: str = ""
    times: Times = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout that is ready for its step, with what a teacher says of it."""

    rollout: Rollout
    scores: TeacherScores | None  # None: the run has no teacher

    @property
    def teacher_logprobs(self) -> np.ndarray:
        """[T] float32, log p_T of its tokens. Only of a run with a teacher."""
        assert self.scores is not None, "a run without a teacher has no log p_T"
        return self.scores.logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSpec:
    """What a teacher on the torch engine is built from."""

    model: str
    dtype: str
    temperature: float
    vocab_size: int
    kind: Literal["sampled", "top_k", "hidden"]
    top_k: int = 0
    attention: str = "sdpa"
    name: str = ""  # the teacher's, where there are several
    on_gpu: bool = False
    adapter: str | None = None  # folder of a LoRA adapter that is added to the weights
    end_tokens: EndTokens = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleWeights:
    """Weights of a batch, without gradients."""

    weights: Tensor  # [B]
    raw: Tensor  # [B] before normalisation
    pivotal_count: Tensor  # [B] int64
    running_mean: float | None  # the `ema` normaliser's state after this batch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSample(Message):
    """One sample as a trainer rank needs it.

    Its part of the loss is weight / (batch size · max(1, T)) · Σ_t token_factors_t · divergence_t; in a mean over tokens the
    denominator is the response tokens of the batch.
    """

    sample_id: int
    prompt_ids: np.ndarray  # [P] int32
    response_ids: np.ndarray  # [T] int32
    student_logprobs: np.ndarray  # [T] float32, by the generator
    teacher_logprobs: np.ndarray | None  # [T] float32; None: the run has no teacher
    weight: float
    token_factors: np.ndarray | None = None  # [T] float32; None: all are 1
    off_policy: bool = False  # not by the run's student; its student_logprobs are the trainer's, or recorded ones
    until_pivotal: int | None = None  # response tokens up to and including the first pivotal one; None: none is pivotal
    payload: Any = None  # as in TeacherScores
    advantage: float = 0.0  # of the verifier's reward, for objectives that learn from it
    taught: bool = True  # whether it learns from the teacher too, where the run has rewards

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """A step's batch: the global one, before it is split over ranks."""

    step: int
    samples: tuple[TrainSample, ...]  # B

    @property
    def response_tokens(self) -> int:
        """Σ_b T_b."""
        return sum(len(s.response_ids) for s in self.samples)


class NonFiniteError(RuntimeError):
    """A loss, a gradient or a log-probability is not finite. The text names the step and the samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """A step's training, summed over ranks."""

    loss: float
    divergence: float  # per token, mean over each response and then over the batch
    loss_after_pivotal: float | None = None  # share of the loss without token factors, see ``loss_magnitudes``; None: no loss
    tokens: int  # prompt and response tokens of the batch
    padding: float  # share of the computed tokens that were padding
    mismatch_mean: float  # |trainer's - generator's log-probability|, mean over response tokens
    mismatch_max: float
    agreement: dict[str, float] = field(default_factory=dict)  # metrics of student beside teacher, see ``objectives.agreement``
    grad_norm: float
    lr: float
    busy_seconds: list[float]  # by rank
    shares: list[list[int]] = field(default_factory=list)  # the sample ids of each rank
    measured: dict[str, float] = field(default_factory=dict)  # what the objective measures, means over response tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a weight sync did."""

    version: Version
    bytes: int
    publish_seconds: float
    receive_seconds: float
    seconds: float  # of the sync itself
    waited_seconds: float = 0.0  # before it, for the responses under way

    @classmethod
    def to_nobody(cls, version: Version) -> Publication:
        """Of a version that no generator asks for."""
        return cls(version=version, bytes=0, publish_seconds=0.0, receive_seconds=0.0, seconds=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Held-out accuracy, with its 95 % interval."""

    problems: int
    accuracy: float
    low: float  # lower end of the interval
    high: float  # upper end
    response_tokens: float  # mean length of a response
    sources: dict[str, float] = field(default_factory=dict)  # of several sources: the accuracy on each one's problems

    def record(self) -> dict[str, Any]:
        """As files have it."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) != {}}

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.problems} held-out problems"
