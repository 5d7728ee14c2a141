"""The stages of a step in this process, without Ray or engines: for experiments on small models.

Begin with ``in_process_stages`` below; ``generators.py``, ``teachers.py``, ``trainers.py`` and ``weighting.py`` are the four
stages. The step, the selection, the weights and the loss are the pipeline's own (``renio_pipeline.loop``,
``renio_pipeline.objectives``); only what generates, scores and trains differs. In float32, a run gives the pipeline's results
from the same responses (``tests/ray/test_in_process.py``). The stages of real runs are in ``actors``.
"""

from __future__ import annotations

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Sampling
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.analyses import AnalysisLog
from renio_pipeline.stages.off_policy import with_off_policy
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.stages.reason_first import with_analyses
from renio_pipeline.stages.recorded import all_recorded, with_recorded


def in_process_stages(config: RunConfig, prepared: Prepared) -> Stages:
    """Load the student and the teachers. Generator and trainer share one module, so a weight sync has nothing to send.

    Raises:
        ConfigError: a key asks for something that only the pipeline's engines can do.
    """
    check(config)
    import torch
    from transformers import AutoModelForCausalLM

    from renio_pipeline.in_process.generators import InProcessGenerators
    from renio_pipeline.in_process.teachers import InProcessTeachers
    from renio_pipeline.in_process.trainers import InProcessTrainers
    from renio_pipeline.in_process.weighting import InProcessWeighting

    lm = AutoModelForCausalLM.from_pretrained(info.resolve(config.student), dtype=torch.float32)
    generators = InProcessGenerators(lm, config, prepared.vocab_size, end_ids(lm, prepared))
    teachers = InProcessTeachers(config, prepared) if config.live_teachers else None
    recorded = all_recorded(config, prepared.recordings, lambda table: table) if prepared.recordings else None
    head = None if teachers is None else teachers.head
    trainers = InProcessTrainers(lm, config, prepared.vocab_size, head, generators, prepared.shared_tokens)
    made = Stages(
        generators=generators,
        teachers=teachers or recorded,
        weighting=InProcessWeighting(config) if config.distils else None,
        trainers=trainers,
        quarantined=set() if teachers is None else teachers.quarantine.ids,
    )
    made = with_recorded(made, config, prepared.recordings)
    made = with_off_policy(made, config, solutions=prepared.solutions, end_tokens=prepared.end_tokens, together=True)
    return with_analyses(made, config, prepared.analyses, AnalysisLog(None))


def end_ids(lm: object, prepared: Prepared) -> set[int]:
    """The tokens that end a response: those of the model's generation settings and the tokenizer's end token."""
    given = getattr(getattr(lm, "generation_config", None), "eos_token_id", None)
    listed = given if isinstance(given, list) else [given]
    return {int(i) for i in [*listed, prepared.tokenizer.eos_token_id] if i is not None}


def check(config: RunConfig) -> None:
    """Raises ConfigError for the first key that these stages do not support."""
    sizes = {"trainer.dtype": config.trainer.dtype} | {
        config.teacher_key(name, "dtype"): teacher.dtype for name, teacher in config.live_teachers.items()
    }
    refused = {key: f"is {dtype}, but these stages compute in float32" for key, dtype in sizes.items() if dtype != "float32"}
    for name, teacher in config.all_teachers.items():
        if teacher.type == "http":
            refused[config.teacher_key(name, "type")] = "may not be http: these stages compute a teacher in this process"
    if config.recorded_teachers and config.live_teachers:
        refused["teachers"] = "may be recorded all or none: these stages route no rows between both"
    if config.trainer.lora is not None:
        refused["trainer.lora"] = "needs the pipeline's trainer"
    if config.max_staleness:
        refused["max_staleness"] = "must be 0: in one process nothing is generated ahead"
    if config.follow is not None:
        refused["method.teacher"] = "must be fixed: a teacher that follows the student needs the pipeline's weight sync"
    if config.sampling != Sampling(temperature=config.sampling.temperature):
        refused["sampling"] = "may have a temperature alone: these stages sample from the whole distribution"
    for key, why in refused.items():
        raise ConfigError(f"{key} {why}")
