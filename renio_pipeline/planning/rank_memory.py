"""The GPU memory of a trainer rank, part by part."""

from __future__ import annotations

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import DTYPE_BYTES, Opsd, Trainer
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.objectives import trained_objective
from renio_pipeline.planning.devices import Device
from renio_pipeline.planning.memory import Use, limit_of
from renio_pipeline.planning.sizes import ModelSizes

BUCKET = 5e8  # elements of DeepSpeed's default reduce_bucket_size, allocated whole even for a small model
SUB_GROUP = 1e9  # elements of DeepSpeed's zero_optimization.sub_group_size, which stage 3 updates one at a time
LIVE = 1e9  # elements of DeepSpeed's stage3_max_live_parameters: whole parameters that a rank holds at stage 3


def trainer_rank(
    config: RunConfig,
    model: ModelSizes,
    teachers: list[ModelSizes],
    device: Device | None,
    ranks: int,
    longest: float,
    answered: float,
) -> Use:
    """The memory of a trainer rank: model states as in ZeRO (arXiv 1910.02054, section 3), plus the larger of the two phases.

    Forward and backward passes add activations and the loss. Those are freed before the optimizer's step, which adds its
    copies of the gradients.

    Args:
        ranks: the number of trainer ranks.
        longest: the longest sample, in tokens.
        answered: the share of the tokens that have a loss.
    """
    trainer = config.trainer
    each = DTYPE_BYTES[trainer.dtype]
    states = model_states(trainer, model, ranks) | average(config.follow, model, ranks)
    tokens = max(float(trainer.micro_batch_tokens), longest)
    passes = {"activations": activations(trainer, model, tokens), **_loss(config, model, teachers, tokens * answered)}
    if trainer.zero_stage:
        given = trainer.deepspeed.get("zero_optimization", {}).get("reduce_bucket_size")
        passes["bucket"] = (given if isinstance(given, int | float) else BUCKET) * each  # "auto" is the default
    if trainer.zero_stage == 3 and ranks > 1:
        passes["gathered parameters"] = min(LIVE, model.parameters) * each
    update = {"optimizer's step": optimizer_step(trainer, model, ranks, fused=bool(config.pools.trainer.gpus))}
    return Use(states | max(passes, update, key=lambda parts: sum(parts.values())), limit_of(device))


def optimizer_step(trainer: Trainer, model: ModelSizes, ranks: int, *, fused: bool) -> float:
    """The peak bytes that the optimizer's step adds to the model states.

    ZeRO flattens the gradients of a partition and casts them to fp32. Stages 1 and 2 do so for whole partitions, and then free
    the gradients that the model states include; stage 3 does so for one sub-group after another, and keeps the gradients. Stage
    0 casts without flattening. An AdamW that is not fused also computes the square roots of the second moments, 4 bytes each.

    Args:
        fused: whether the update is a single kernel, as on GPUs.
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


def average(follow: Opsd | None, model: ModelSizes, ranks: int) -> dict[str, float]:
    """The bytes per rank of a teacher that averages the student: the rank's share of the average, in fp32."""
    averages = follow is not None and follow.teacher == "ema"
    return {"teacher's average": 4 * model.parameters / ranks} if averages else {}


def model_states(trainer: Trainer, model: ModelSizes, ranks: int) -> dict[str, float]:
    """The bytes per rank of weights, gradients, and the optimizer's fp32 weights and two moments, partitioned by ZeRO stage."""
    each, trained, stage = DTYPE_BYTES[trainer.dtype], _trained(trainer, model), trainer.zero_stage
    weights = model.parameters + (trained if trainer.lora else 0)
    own_masters = trainer.dtype == "float32" and stage == 0  # ZeRO keeps fp32 copies of fp32 weights too
    return {
        "weights": weights * each / (ranks if stage == 3 else 1),
        "gradients": trained * each / (ranks if stage >= 2 else 1),
        "optimizer": trained * (8 if own_masters else 12) / (ranks if stage >= 1 else 1),
    }


def activations(trainer: Trainer, model: ModelSizes, tokens: float) -> float:
    """The bytes that a forward pass keeps for the backward pass.

    A layer of a Llama-like model in transformers keeps 8 H + 4 I + 5 (Q + K) elements per token, if attention keeps no scores.
    With checkpointing, a layer keeps its input, and only one layer at a time keeps the rest.
    """
    layer = 8 * model.hidden + 4 * model.mlp + 5 * (model.queries + model.keys)
    kept = model.layers * model.hidden + layer if trainer.gradient_checkpointing else model.layers * layer
    return tokens * kept * DTYPE_BYTES[trainer.dtype]


def _loss(config: RunConfig, model: ModelSizes, teachers: list[ModelSizes], tokens: float) -> dict[str, float]:
    held = (0 if config.trainer.lora else 4 * model.head) + 8 * tokens * model.hidden  # gradients of head and states
    objective = trained_objective(config)
    with objective.guarded("working_bytes"):
        parts = {"loss": objective.working_bytes(model.vocab) + held}
    if config.objective.payload == HIDDEN:
        owners = zip(teachers, config.all_teachers.values(), strict=True)
        parts["teachers' heads"] = sum(t.head * DTYPE_BYTES[s.dtype] for t, s in owners)
    return parts


def _trained(trainer: Trainer, model: ModelSizes) -> float:
    return model.factors(trainer.lora.targets, trainer.lora.r) if trainer.lora else model.parameters
