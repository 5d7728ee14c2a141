"""The GPU memory of generators and teachers, part by part, and its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import DTYPE_BYTES, Generator, Teacher
from renio_pipeline.planning.devices import GIB, Device
from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.sizes import ModelSizes
from renio_pipeline.stages.engine_limits import EngineLimits

UTILIZATION = 0.92  # vLLM 0.32's default of gpu_memory_utilization
PROMPT_LOGITS = 1024  # tokens per chunk of prompt logits in vLLM 0.32's GPU runner: CHUNK_SIZE of prompt_logprob.py
CONTEXT_BYTES = 1.5 * GIB  # overhead of an engine: CUDA's context, kernels, captured graphs
RESERVE = 0.1  # share of a GPU without vLLM: CUDA's context, NCCL's buffers, fragmentation
PACKED_BYTES = 2**28  # default of sync.packed_bytes: the buffer of a packed weight transfer
PACKED_ROW = 16384  # tokens of a torch teacher's row, renio_pipeline.models.teacher.UNMASKED_TOKENS on a GPU


@dataclass(frozen=True)
class Use:
    """Memory use on one GPU, in bytes."""

    parts: dict[str, float]
    limit: float  # infinite if no device is known

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.limit


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The memory of a vLLM engine, and the number of sequences that its cache holds."""

    use: Use
    cache_tokens: float  # tokens that the rest of the engine's share can cache
    sequences: float  # sequences in the cache, at their mean size in flight

    @property
    def fits(self) -> bool:
        return self.use.fits


def engine(
    section: Generator,
    model: ModelSizes,
    device: Device | None,
    *,
    limits: EngineLimits,
    prompt: float,
    lengths: Lengths | None,
    context: float,
    prompt_logits: bool = False,
    model_share: float = 0.0,
    transfer: float = 0.0,
) -> Engine:
    """The memory of a vLLM engine. It takes its whole share of the GPU, and caches keys and values in what weights and
    activations leave.

    Args:
        limits: the engine's batch limits.
        prompt: mean length of a prompt, in tokens.
        lengths: the response lengths; None: the engine generates nothing.
        context: the longest sequence in tokens, which the cache must hold.
        prompt_logits: whether the logits of every prompt token are computed, as in scoring.
        model_share: bytes of the same GPU that a trainer rank takes.
        transfer: bytes that a weight sync takes outside the engine's share.
    """
    each, parallel = DTYPE_BYTES[section.dtype], section.tensor_parallel
    options = section.engine
    batched = limits.batched_tokens
    # Fp32 logits and their derivatives, for the sequences that are sampled or for a chunk of a prompt's tokens.
    logits = min(PROMPT_LOGITS, batched, context) * 3 if prompt_logits else min(limits.sequences, batched) * 2
    parts = {
        "weights": model.parameters * each / parallel,
        "activations": batched * (2 * model.hidden + 2 * model.mlp / parallel) * each,
        "logits": logits * model.vocab * 4,
        "context": CONTEXT_BYTES,
    }
    share = float(options.get("gpu_memory_utilization") or UTILIZATION)
    limit = math.inf if device is None else min(share * device.memory, device.memory - model_share - transfer)
    cached = model.cache_bytes(1 if str(options.get("kv_cache_dtype", "")).startswith("fp8") else each, parallel)
    room = limit - sum(parts.values())
    size = prompt + (lengths.under_way if lengths else 0.0)
    parts["longest sequence"] = context * cached
    tokens = max(0.0, room / cached) if math.isfinite(room) else math.inf
    return Engine(use=Use(parts, limit), cache_tokens=tokens, sequences=tokens / size)


def transfer(config: RunConfig, model: ModelSizes) -> float:
    """The bytes that a generator's GPU needs for a weight sync: the packed tensors that arrive, and a layer being assembled.

    If the largest tensor does not fit into the buffer, the buffer grows to that tensor and what is packed with it.
    """
    if config.sync.backend == "host":
        return 0.0
    each = DTYPE_BYTES[config.generator.dtype]
    largest = model.head * each
    buffer = (config.sync.packed_bytes or PACKED_BYTES) + largest
    return buffer + max(largest, (model.matrices - model.head) / model.layers * each)


def torch_teacher(section: Teacher, model: ModelSizes, device: Device | None, longest: float, hidden_sent: float) -> Use:
    """The memory of a torch teacher: a transformers forward pass over packed rows.

    Args:
        longest: the longest sequence, in tokens.
        hidden_sent: bytes of a batch's hidden states, if they are the payload.
    """
    each, row = DTYPE_BYTES[section.dtype], max(PACKED_ROW, longest)
    parts = {
        "weights": model.parameters * each,
        "activations": row * (6 * model.hidden + 3 * model.mlp + 2 * model.queries) * each,
        "attention mask": row * row * each,
        "logits": 3 * 4 * 2**25,
        "hidden states": hidden_sent,
    }
    return Use(parts, limit_of(device))


def limit_of(device: Device | None) -> float:
    """The memory of a GPU without vLLM that is available, in bytes; infinite if no device is known."""
    return math.inf if device is None else (1 - RESERVE) * device.memory
