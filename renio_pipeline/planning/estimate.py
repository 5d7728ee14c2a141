"""Rates from a device's data sheet: the time of arithmetic and memory traffic, at the efficiencies assumed below."""

from __future__ import annotations

from dataclasses import dataclass

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import DTYPE_BYTES, Generator, Teacher
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.planning.devices import Device
from renio_pipeline.planning.rates import GeneratorRate, TeacherRate, TrainerRate
from renio_pipeline.planning.sizes import ModelSizes

DECODE_BANDWIDTH = 0.6  # share of the memory bandwidth that decoding reaches
PREFILL = 0.4  # share of the peak FLOP/s when a whole prompt or response is read
TRAINING = 0.35  # share of the peak FLOP/s in forward and backward passes
EXCHANGE = 0.7  # share of a link's bandwidth
ENGINE_STEP = 0.002  # seconds of overhead per token step of an engine: scheduling, sampling
BATCH = 0.02  # seconds of overhead per batch to score


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The models of a plan, and the mean lengths of prompts and responses."""

    student: ModelSizes
    teachers: tuple[ModelSizes, ...]
    prompt: float  # tokens
    teacher_prompt: float
    response: float

    @property
    def sequence(self) -> float:
        return self.prompt + self.response


def generator_rate(section: Generator, sizes: Sizes, device: Device, slots: int) -> GeneratorRate:
    """The rate of a generator. A token step reads the weights once and the cache of each response; with many responses,
    arithmetic is the bottleneck instead.

    The prefill of the prompt is spread over the tokens of the response.
    """
    model = sizes.student
    each, parallel = DTYPE_BYTES[section.dtype], section.tensor_parallel
    bandwidth = DECODE_BANDWIDTH * device.bandwidth
    flops = PREFILL * device.flops(section.dtype) * parallel
    read = each / parallel / bandwidth  # seconds per parameter
    cache = model.cache_bytes(each, parallel) * (sizes.prompt + sizes.response / 2) / bandwidth
    arithmetic = forward(model, sizes.sequence) / flops
    prefill = sizes.prompt * forward(model, sizes.prompt) / flops / max(1.0, sizes.response)
    # The two all-reduces of a layer, each of which takes at least about 20 microseconds.
    shared = 2 * model.layers * 2e-5 if parallel > 1 else 0.0
    counts = sorted({*(2**i for i in range(16) if 2**i < slots), slots})
    seconds = {
        n: ENGINE_STEP + shared + max(min(model.matrices, n * model.passed) * read, n * arithmetic) + n * (cache + prefill)
        for n in counts
    }
    return GeneratorRate(slots, {n: n / s for n, s in seconds.items()})


def teacher_rate(section: Teacher, sizes: Sizes, device: Device, model: ModelSizes, batch_tokens: int) -> TeacherRate:
    """The rate of a teacher: one forward pass of prompt and response, in calls of at most ``batch_tokens``."""
    tokens = sizes.teacher_prompt + sizes.response
    flops = forward(model, tokens, headed=sizes.response / tokens)
    rate = PREFILL * device.flops(section.dtype) * section.tensor_parallel / flops
    return TeacherRate(rate, batch_tokens, BATCH)


def trainer_rate(config: RunConfig, sizes: Sizes, device: Device, gpus_per_node: int) -> TrainerRate:
    """The rate of a trainer rank: forward and backward, a second forward with gradient checkpointing, and the exchange of
    gradients; all of it as often as the method passes over a batch."""
    trainer, model = config.trainer, sizes.student
    answered = sizes.response / sizes.sequence
    body = forward(model, sizes.sequence, headed=0.0)
    # Frozen weights need no gradient.
    passes = (2.0 if trainer.lora else 3.0) + (1.0 if trainer.gradient_checkpointing else 0.0)
    head = 2 * model.head * answered * (2 if trainer.lora else 3)
    if config.objective.payload == HIDDEN:
        heads = [t.head for t in sizes.teachers]
        head += 2 * (sum(heads) if config.combine else max(heads)) * answered
    flops = (body * passes + head) * config.passes
    asked = 1.0 if config.student_logprobs == "trainer" else config.off_policy_share
    flops += 0.0 if config.on_solutions else asked * (body + 2 * model.head * answered)  # one more forward pass of these
    trained = model.factors(trainer.lora.targets, trainer.lora.r) if trainer.lora else model.parameters
    each = DTYPE_BYTES[trainer.dtype]
    # The optimizer reads and writes weights, gradients and two moments in fp32, and writes the working weights.
    optimizer = trained * (28 + each) / (DECODE_BANDWIDTH * device.bandwidth)
    gathered = 1.5 * model.parameters * each if trainer.zero_stage == 3 else 0.0
    return TrainerRate(
        TRAINING * device.flops(trainer.dtype) / flops,
        optimizer * config.passes,
        (trained * each + gathered) * config.passes,
        (EXCHANGE * device.link, EXCHANGE * device.network),
        gpus_per_node,
    )


def sync_seconds(config: RunConfig, sizes: Sizes, device: Device) -> float:
    """The seconds of a weight sync: all bytes once over the slowest link, through host memory or between GPUs."""
    lora, model = config.trainer.lora, sizes.student
    sent = model.factors(lora.targets, lora.r) if lora and config.sync.lora == "adapter" else model.parameters
    ways = {"host": 2 / device.host, "nccl": 1 / (EXCHANGE * device.network), "ipc": 2 / device.bandwidth}
    return 0.05 + sent * DTYPE_BYTES[config.generator.dtype] * ways[config.sync.backend]


def forward(model: ModelSizes, tokens: float, headed: float = 1.0) -> float:
    """The FLOPs of a forward pass per token.

    Args:
        tokens: the length of the causal sequence.
        headed: the share of its tokens whose logits are computed.
    """
    body = 2 * (model.passed - model.head)
    attention = 4 * model.layers * model.queries * tokens / 2
    return body + attention + 2 * headed * model.head
