"""What an actor needs of its GPU's memory, part by part, and what it may have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import DTYPE_BYTES, Generator, Teacher, Trainer
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.objectives import trained_objective
from renio_pipeline.planning.devices import GIB, Device
from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.sizes import ModelSizes
from renio_pipeline.stages.engine_limits import EngineLimits

UTILIZATION = 0.92  # vLLM 0.32's default of gpu_memory_utilization
PROMPT_LOGITS = 1024  # tokens whose logits vLLM 0.32's GPU runner makes at a time: CHUNK_SIZE of its prompt_logprob.py
CONTEXT_BYTES = 1.5 * GIB  # of an engine: CUDA's context, kernels, captured graphs
RESERVE = 0.1  # of a GPU without vLLM: CUDA's context, NCCL's buffers, fragmentation
BUCKET = 5e8  # elements of DeepSpeed's default reduce_bucket_size: it is allocated whole, however small the model
PACKED_BYTES = 2**28  # of a packed weight transfer's buffer, where sync.packed_bytes says nothing
SUB_GROUP = 1e9  # elements of DeepSpeed's zero_optimization.sub_group_size, which stage 3 updates one at a time
LIVE = 1e9  # elements of its stage3_max_live_parameters: of whole parameters that a rank holds at stage 3
PACKED_ROW = 16384  # tokens of a torch teacher's row, renio_pipeline.models.teacher.UNMASKED_TOKENS on a GPU


@dataclass(frozen=True)
class Use:
    """Bytes on one GPU."""

    parts: dict[str, float]
    limit: float  # infinite where no device is known

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.limit


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A vLLM engine's memory, and how many sequences it has room for."""

    use: Use
    cache_tokens: float  # that the rest of its share holds
    sequences: float  # of the mean size that they have while they are under way

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
    """An engine takes its share of the GPU whole, and caches keys and values in what its weights and its work leave.

    Args:
        limits: how much it computes at a time.
        prompt: tokens of the mean prompt.
        lengths: of responses; None: it writes none.
        context: tokens of the longest sequence, which the cache must hold.
        prompt_logits: logits of every prompt token are made, as scoring does.
        model_share: bytes that a trainer rank takes of the same GPU.
        transfer: bytes that a weight sync takes outside of the engine's share.
    """
    each, parallel = DTYPE_BYTES[section.dtype], section.tensor_parallel
    options = section.engine
    batched = limits.batched_tokens
    # Fp32 logits and what is made of them: of the sequences that a token is sampled for, or of a chunk of a prompt's tokens.
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
    """Bytes that a generator's GPU needs for a weight sync: the packed tensors that arrive, and a layer that is put together.

    The largest tensor may not fit into the buffer, which is then as large as that and what is packed with it.
    """
    if config.sync.backend == "host":
        return 0.0
    each = DTYPE_BYTES[config.generator.dtype]
    largest = model.head * each
    buffer = (config.sync.packed_bytes or PACKED_BYTES) + largest
    return buffer + max(largest, (model.matrices - model.head) / model.layers * each)


def torch_teacher(section: Teacher, model: ModelSizes, device: Device | None, longest: float, hidden_sent: float) -> Use:
    """A transformers forward over packed rows. hidden_sent: bytes of the states of a batch, where they are the payload."""
    each, row = DTYPE_BYTES[section.dtype], max(PACKED_ROW, longest)
    parts = {
        "weights": model.parameters * each,
        "activations": row * (6 * model.hidden + 3 * model.mlp + 2 * model.queries) * each,
        "attention mask": row * row * each,
        "logits": 3 * 4 * 2**25,
        "hidden states": hidden_sent,
    }
    return Use(parts, _limit(device))


def trainer_rank(
    config: RunConfig,
    model: ModelSizes,
    teachers: list[ModelSizes],
    device: Device | None,
    ranks: int,
    longest: float,
    answered: float,
) -> Use:
    """Model states as in ZeRO (arXiv 1910.02054, section 3), and the larger of what the two halves of a step add to them.

    Forward and backward passes add activations and the loss; the optimizer's step, by when those are free, adds its copies of
    the gradients.

    Args:
        longest: tokens of the longest sample.
        answered: share of the tokens that have a loss.
    """
    trainer = config.trainer
    each = DTYPE_BYTES[trainer.dtype]
    states = model_states(trainer, model, ranks) | average(config, model, ranks)
    tokens = max(float(trainer.micro_batch_tokens), longest)
    passes = {"activations": activations(trainer, model, tokens), **_loss(config, model, teachers, tokens * answered)}
    if trainer.zero_stage:
        given = trainer.deepspeed.get("zero_optimization", {}).get("reduce_bucket_size")
        passes["bucket"] = (given if isinstance(given, int | float) else BUCKET) * each  # "auto" is the default
    if trainer.zero_stage == 3 and ranks > 1:
        passes["gathered parameters"] = min(LIVE, model.parameters) * each
    update = {"optimizer's step": optimizer_step(trainer, model, ranks, fused=bool(config.pools.trainer.gpus))}
    return Use(states | max(passes, update, key=lambda parts: sum(parts.values())), _limit(device))


def optimizer_step(trainer: Trainer, model: ModelSizes, ranks: int, *, fused: bool) -> float:
    """Bytes that the optimizer's step adds to the model states at its peak.

    ZeRO flattens the gradients of a partition and casts them to fp32: stages 1 and 2 whole partitions, and then they free the
    gradients that the states count; stage 3 one sub-group after another, and it keeps them. Stage 0 casts without flattening.
    An AdamW that is not fused then makes the square roots of the second moments as well, 4 bytes each.

    Args:
        fused: the update is one kernel, as it is on GPUs.
    """
    each, stage = DTYPE_BYTES[trainer.dtype], trainer.zero_stage
    roots, half = (0 if fused else 4), trainer.dtype != "float32"
    partition = _trained(trainer, model) / (ranks if stage >= 1 else 1)
    if stage == 0:
        return partition * ((4 if half else 0) + roots)
    if stage == 3:
        partition = min(SUB_GROUP, partition)
    casting = each + (4 if half else 0)
    updating = 4 + roots - (0 if stage == 3 else each)
    return partition * max(casting, updating)


def average(config: RunConfig, model: ModelSizes, ranks: int) -> dict[str, float]:
    """What a teacher that averages the student keeps on each rank: its share of the average, in fp32."""
    averages = config.follow is not None and config.follow.teacher == "ema"
    return {"teacher's average": 4 * model.parameters / ranks} if averages else {}


def model_states(trainer: Trainer, model: ModelSizes, ranks: int) -> dict[str, float]:
    """Weights, gradients, and the optimizer's fp32 weights and two moments; a ZeRO stage shares them over the ranks."""
    each, trained, stage = DTYPE_BYTES[trainer.dtype], _trained(trainer, model), trainer.zero_stage
    weights = model.parameters + (trained if trainer.lora else 0)
    own_masters = trainer.dtype == "float32" and stage == 0  # ZeRO keeps fp32 copies of fp32 weights too
    return {
        "weights": weights * each / (ranks if stage == 3 else 1),
        "gradients": trained * each / (ranks if stage >= 2 else 1),
        "optimizer": trained * (8 if own_masters else 12) / (ranks if stage >= 1 else 1),
    }


def activations(trainer: Trainer, model: ModelSizes, tokens: float) -> float:
    """Bytes that a forward pass keeps for the backward one.

    A layer of a Llama-like model in transformers keeps 8 H + 4 I + 5 (Q + K) elements of a token, with attention that keeps
    no scores; with checkpointing a layer keeps its input, and one layer at a time the rest.
    """
    layer = 8 * model.hidden + 4 * model.mlp + 5 * (model.queries + model.keys)
    kept = model.layers * model.hidden + layer if trainer.gradient_checkpointing else model.layers * layer
    return tokens * kept * DTYPE_BYTES[trainer.dtype]


def _loss(config: RunConfig, model: ModelSizes, teachers: list[ModelSizes], tokens: float) -> dict[str, float]:
    held = (0 if config.trainer.lora else 4 * model.head) + 8 * tokens * model.hidden  # gradients of the head and of the states
    parts = {"loss": trained_objective(config).working_bytes(model.vocab) + held}
    if config.objective.payload == HIDDEN:
        owners = zip(teachers, config.all_teachers.values(), strict=True)
        parts["teachers' heads"] = sum(t.head * DTYPE_BYTES[s.dtype] for t, s in owners)
    return parts


def _trained(trainer: Trainer, model: ModelSizes) -> float:
    return model.factors(trainer.lora.targets, trainer.lora.r) if trainer.lora else model.parameters


def _limit(device: Device | None) -> float:
    return math.inf if device is None else (1 - RESERVE) * device.memory
