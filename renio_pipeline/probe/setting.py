"""The configuration of a run as a probe of it needs it, and as ``renio score`` does."""

from __future__ import annotations

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Opsd, Reward, Sync
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.config.teachers.recorded_teachers import check_live, check_recordable
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL

STATES = "the loss is that of top_k_forward_kl, k = {k}, not of {label}: vLLM's engine for hidden states writes no text"


WITHOUT_TRAINING: dict[str, object] = {"sync": Sync(), "placement": "separate", "metrics_port": None, "max_staleness": 0}


def recording(config: RunConfig) -> RunConfig:
    """The configuration of a run as ``renio score`` needs it. Raises ConfigError as ``check_recordable`` does."""
    check_recordable(config)
    return config.model_copy(update=WITHOUT_TRAINING)


def probing(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The same student, teachers, data and sampling, with no weight sync and one trainer, and with teachers that can write.

    Returns:
        The configuration, and notes on what it changes in the numbers.

    Raises:
        ConfigError: the configuration has no teacher, or a recorded one.
    """
    if not config.distils:
        raise ConfigError(
            f"method.type: {config.method.type} learns from no teacher, so there is none to probe; set method.type=opd and "
            "teacher.model (or method.type=opsd) to see what one would teach this student"
        )
    check_live(config, "renio probe")
    notes: list[str] = []
    changes: dict[str, object] = dict(WITHOUT_TRAINING)
    changes["reward"] = Reward()  # what a teacher teaches is the distillation
    if isinstance(config.method, Opsd):
        changes["method"] = config.method.model_copy(update={"teacher": "fixed"})  # a following one begins as the student too
    if config.objective.payload == HIDDEN:
        changes["objective"] = instead = TopKForwardKL()
        notes.append(STATES.format(k=instead.k, label=config.objective.label))
    trainer = config.pools.trainer.model_copy(update={"replicas": 1})
    changes["pools"] = config.pools.model_copy(update={"trainer": trainer})
    return config.model_copy(update=changes), notes
