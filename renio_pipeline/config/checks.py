"""Combinations of keys that cannot give a run. Each error says why, and which key to change."""

from __future__ import annotations

import re
from typing import Any

from renio_pipeline.config import schema
from renio_pipeline.config.combining import check_combine
from renio_pipeline.config.engine_refusals import refuse_breaking, refuse_gpu_variables
from renio_pipeline.config.mixture import check_sources, parts
from renio_pipeline.config.off_policy import check_off_policy
from renio_pipeline.config.own_tokenizers import check_own_tokenizers
from renio_pipeline.config.run_config import RunConfig
from renio_pipeline.config.sections import HIDDEN, TeacherPayload
from renio_pipeline.config.teacher_writing import check_teachers_write
from renio_pipeline.config.teachers.recorded_teachers import check_recorded
from renio_pipeline.config.teachers.served_teachers import check_served


def check_combinations(config: RunConfig) -> None:
    """Raises ValueError for the first one found."""
    for check in (
        _batch,
        _variants,
        _filter,
        _teachers,
        check_combine,
        check_own_tokenizers,
        _sources,
        _method,
        _reason_first,
        check_off_policy,
        _lora,
        _pools,
        _sync,
        _ipc,
        _placement,
        _schedule,
        _deterministic,
        _endpoint,
    ):
        check(config)


def _batch(c: RunConfig) -> None:
    if c.batch_size % c.samples_per_prompt:
        raise ValueError(f"batch_size ({c.batch_size}) must be a multiple of samples_per_prompt ({c.samples_per_prompt})")
    for key, given in (("sampling.temperature", c.sampling.temperature), ("evaluate.temperature", c.evaluate.temperature)):
        if given / c.temperature > 2:  # vLLM's own bound, of what is left when its logits are divided by `temperature` already
            raise ValueError(f"{key} ({given}) may be at most twice temperature ({c.temperature}); lower it")
    for name in ("presence_penalty", "frequency_penalty"):
        if abs(given := getattr(c.sampling, name)) / c.temperature > 2:  # as above
            raise ValueError(f"sampling.{name} ({given}) may be at most twice temperature ({c.temperature}); lower it")
    if c.trainer.warmup_steps >= c.steps:
        raise ValueError(f"trainer.warmup_steps ({c.trainer.warmup_steps}) must be below steps ({c.steps})")
    _refuse_owned("trainer.deepspeed", c.trainer.deepspeed, schema.OWNED_DEEPSPEED_KEYS)


def _variants(c: RunConfig) -> None:
    with c.objective.guarded("payload", refuses=True):
        payload: object = c.objective.payload
    if not isinstance(payload, TeacherPayload):
        raise ValueError(
            f"objective: the payload of {c.objective.label} must be SAMPLED, top_k(k) or HIDDEN of renio_pipeline.objectives, "
            f"got {payload!r}"
        )
    with c.weighting.guarded("pivotal", refuses=True):
        pivotal: object = c.weighting.pivotal
    if not isinstance(pivotal, schema.Pivotal | None):
        raise ValueError(f"weighting: pivotal of {c.weighting.label} must be a Pivotal or None, got {pivotal!r}")
    c.method.check(c)
    c.reward.check(c)
    for section in (c.weighting, c.objective):
        with section.guarded("check", refuses=True):
            section.check(c)
    c.pivotal.check("diagnostics")


def _endpoint(c: RunConfig) -> None:
    if c.metrics_discovery is not None and c.metrics_port is None:
        raise ValueError("metrics_discovery: there is no endpoint to be found without metrics_port; set it (0: any free port)")


def _filter(c: RunConfig) -> None:
    if c.unfinished and c.filter != "incorrect":
        why = "filter all keeps them anyway" if c.filter == "all" else "a response without a final answer is never correct"
        raise ValueError(f"unfinished: true goes with filter incorrect alone: {why}; set filter=incorrect, or leave it out")


def _method(c: RunConfig) -> None:
    if isinstance(c.method, schema.Grpo | schema.Sft):
        return  # its own check says everything
    if not c.all_teachers:
        raise ValueError(
            f"objective {c.objective.label} asks for no teacher, and method {c.method.type} learns from one; choose another "
            "objective.type, or set method.type=grpo"
        )
    if isinstance(c.method, schema.Opd):
        for name, teacher in c.all_teachers.items():
            if teacher.model is None and teacher.type != "recorded":
                raise ValueError(f"{c.teacher_key(name, 'model')}: required, unless method.type is opsd")
        return
    if c.teachers:
        raise ValueError("teachers: in opsd the teacher is the student itself, and there is one; set method.type=opd")
    if c.teacher.model not in (None, c.student):
        raise ValueError(
            f"teacher.model ({c.teacher.model}) differs from student ({c.student}), but in opsd the teacher is the "
            "student itself, whose weights it may take over; leave teacher.model out, or set method.type=opd"
        )
    for name, teacher in c.all_teachers.items():
        if teacher.end_tokens:
            raise ValueError(
                f"{c.teacher_key(name, 'end_tokens')}: in opsd the teacher is the student itself, and ends as it does; leave "
                "it out"
            )
        if c.follow and teacher.adapter is not None:
            raise ValueError(
                f"{c.teacher_key(name, 'adapter')}: method.teacher {c.follow.teacher} gets the student's weights, to which no "
                "adapter belongs; leave it out"
            )
    if c.follow and c.objective.payload == HIDDEN and c.teacher.type != "torch":
        raise ValueError(
            f"method.teacher {c.follow.teacher} with objective.type {c.objective.type} needs teacher.type=torch, which takes "
            f"new weights and sends hidden states; {c.teacher.type} does only one of them at a time"
        )


def _reason_first(c: RunConfig) -> None:
    reasons = c.reason_first
    sections = {"prompts": c.prompts}
    sections |= {f"{part.key}.prompts": part.section.prompts for part in parts(c.data) if part.section.prompts is not None}
    for key, section in sections.items():
        shows = section.teacher is not None and "{reasoning}" in section.teacher
        if shows and reasons is None:
            raise ValueError(f"{key}.teacher: {{reasoning}} is what method.reason_first writes; set that, or leave it out")
        if reasons is not None and section.teacher is not None and not shows:
            raise ValueError(f"{key}.teacher: has no {{reasoning}}, which method.reason_first writes for it; add that")
    if reasons is None:
        return
    if not c.privileged:
        raise ValueError(
            "method.reason_first: the teacher analyses the reference solution, which it is not shown; set "
            "method.privileged=true"
        )
    if reasons.temperature / c.temperature > 2:  # vLLM's bound, see ``_batch``
        raise ValueError(
            f"method.reason_first.temperature ({reasons.temperature}) may be at most twice temperature ({c.temperature}); "
            "lower it"
        )
    check_teachers_write(c, "method.reason_first")


def _teachers(c: RunConfig) -> None:
    if c.teachers is not None and c.teacher != schema.Teacher():
        raise ValueError("teacher and teachers are both given: one teacher for every row, or one for each group of rows")
    if c.teachers == {}:
        raise ValueError("teachers: names no teacher; give at least one, or use teacher")
    for name in {**(c.teachers or {}), **c.pools.teachers}:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"teachers.{name}: a teacher's name has letters, digits, _ and - only")
    unknown = sorted(c.pools.teachers.keys() - (c.teachers or {}).keys())
    if unknown:
        raise ValueError(f"pools.teachers.{unknown[0]}: there is no teacher of this name in teachers")
    for name, teacher in c.all_teachers.items():
        _teacher(c, name, teacher)


def _sources(c: RunConfig) -> None:
    check_sources(c.data, list(c.teachers or {}) if c.routed else [])


def _teacher(c: RunConfig, name: str, teacher: schema.Teacher) -> None:
    section = c.teacher_key(name)
    check_served(c, name)
    check_recorded(c, name)
    if teacher.type == "torch" and (teacher.tensor_parallel > 1 or teacher.engine or teacher.separate_process):
        raise ValueError(
            f"{section}.tensor_parallel, {section}.engine and {section}.separate_process are vLLM's; a torch teacher has none "
            f"of them: set {section}.type=vllm"
        )
    if teacher.type == "vllm" and teacher.attention != "sdpa":
        raise ValueError(f"{section}.attention is a torch teacher's; vLLM chooses its own: set {section}.type=torch")


def _lora(c: RunConfig) -> None:
    dotted = next((t for t in c.trainer.lora.targets if "." in t), None) if c.trainer.lora else None
    if dotted:
        last = dotted.rpartition(".")[2]
        raise ValueError(f"trainer.lora.targets: {dotted!r} is a path; give the module's last name, {last!r}")
    if c.trainer.lora is None:
        for given, key in ((c.sync.lora == "adapter", "sync.lora=adapter"), (c.checkpoint.merged, "checkpoint.merged")):
            if given:
                raise ValueError(f"{key} needs trainer.lora: without it there is no adapter")
    elif c.sync.lora == "adapter" and c.sync.backend != "host":
        raise ValueError(f"sync.lora adapter needs sync.backend=host, not {c.sync.backend}: adapters go by host memory")


def _pools(c: RunConfig) -> None:
    sections: dict[str, schema.Generator] = {"generator": c.generator} if c.generates else {}
    pools = {"generator": "generator"}
    for name, teacher in c.live_teachers.items():
        sections[c.teacher_key(name)] = teacher
        pools[c.teacher_key(name)] = c.teacher_pools[name]
    for key, section in sections.items():
        gpus = c.pool(pools[key]).gpus
        if gpus and section.tensor_parallel > 1 and gpus != section.tensor_parallel:
            other = f"{key}.tensor_parallel ({section.tensor_parallel})"
            raise ValueError(f"pools.{c.pool_key(pools[key])}.gpus ({gpus}) must equal {other}")
        _refuse_owned(f"{key}.engine", section.engine, schema.OWNED_ENGINE_KEYS)
        refuse_breaking(f"{key}.engine", section.engine, receives_weights=key == "generator" or c.follow is not None)
    for name in c.pool_names:
        refuse_gpu_variables(f"pools.{c.pool_key(name)}", c.pool(name).env)
    if not (c.pools.trainer.cpus or c.pools.trainer.gpus):
        raise ValueError("pools.trainer.cpus and pools.trainer.gpus are both 0: a rank needs one of them to be placed by")


def _sync(c: RunConfig) -> None:
    if c.follow and c.sync.backend != "host":
        raise ValueError(f"method.teacher {c.follow.teacher} needs sync.backend=host, not {c.sync.backend}")
    if c.sync.backend != "host" and not (c.pools.generator.gpus and c.pools.trainer.gpus):
        raise ValueError(
            f"sync.backend {c.sync.backend!r} moves weights between GPUs, but pools.generator.gpus or "
            "pools.trainer.gpus is 0; use host, or give both pools GPUs"
        )


def _ipc(c: RunConfig) -> None:
    if c.sync.backend == "ipc" and c.generator.separate_process:
        raise ValueError(
            "sync.backend ipc hands over CUDA memory handles, which vLLM cannot send to an engine in a process of its own; set "
            "generator.separate_process=false, or sync.backend=host"
        )


def _placement(c: RunConfig) -> None:
    if c.placement == "separate":
        if c.trainer.offload != "none":
            raise ValueError(
                f"trainer.offload {c.trainer.offload} makes room for a generator on the same GPU, but with placement separate "
                "there is none; set placement=colocated, or leave trainer.offload out"
            )
        if c.sync.backend == "ipc":
            raise ValueError(
                "sync.backend ipc hands weights over within one GPU, but with placement separate generators and trainer ranks "
                "have GPUs of their own; set placement=colocated, or sync.backend=host or nccl"
            )
        return
    generator, trainer = c.pools.generator, c.pools.trainer
    if c.sync.backend == "nccl":
        raise ValueError(
            "sync.backend nccl needs a GPU for each of its ends, but with placement colocated a generator and a trainer rank "
            "share one; set sync.backend=host or ipc, or placement=separate"
        )
    if c.max_staleness:
        raise ValueError(
            "placement colocated lets generator and trainer take turns on a GPU, so nothing is written while the trainer "
            f"works: max_staleness must be 0, not {c.max_staleness}; or set placement=separate"
        )
    if generator.replicas != trainer.replicas or c.generator.tensor_parallel > 1:
        raise ValueError(
            "placement colocated puts one generator beside each trainer rank: pools.generator.replicas "
            f"({generator.replicas}) must equal pools.trainer.replicas ({trainer.replicas}), and generator.tensor_parallel "
            f"({c.generator.tensor_parallel}) be 1"
        )
    if generator.gpus != trainer.gpus:
        raise ValueError(
            f"placement colocated: pools.generator.gpus ({generator.gpus}) and pools.trainer.gpus ({trainer.gpus}) are the "
            "same GPUs, so they must be equal"
        )
    if generator.labels != trainer.labels:
        raise ValueError(
            f"placement colocated: pools.generator.labels ({generator.labels}) and pools.trainer.labels ({trainer.labels}) are "
            "of the same nodes, so they must be equal"
        )
    if generator.gpus > 1:
        raise ValueError(
            f"placement colocated: a generator and a rank share one GPU, or a part of one, not {generator.gpus:g}; raise "
            "pools.generator.replicas and pools.trainer.replicas instead"
        )
    if generator.gpus and not {"gpu_memory_utilization", "kv_cache_memory_bytes"} & c.generator.engine.keys():
        raise ValueError(
            "placement colocated: vLLM would take nearly all memory of a GPU that holds the trainer's weights too; set "
            "generator.engine.gpu_memory_utilization to the share that those leave, for example 0.5"
        )


def _schedule(c: RunConfig) -> None:
    if c.in_flight == "keep" and not c.max_staleness:
        raise ValueError(
            "in_flight keep lets responses live through a weight sync, but with max_staleness 0 none is under way then; set "
            "max_staleness to 1 or more, or leave in_flight out"
        )
    for name, limits in c.autoscaled.items():
        key, pool = f"pools.{c.pool_key(name)}", c.pool(name)
        if name == "trainer":
            raise ValueError("pools.trainer.autoscale: the number of trainer ranks is fixed while a run goes on; leave it out")
        if c.deterministic or (c.placement == "colocated" and name == "generator"):
            why = "deterministic" if c.deterministic else "placement colocated"
            raise ValueError(f"{key}.autoscale: {why} fixes the number of replicas; leave it out")
        if not limits.min <= pool.replicas <= limits.max:
            raise ValueError(
                f"{key}.replicas ({pool.replicas}), where the run starts, must lie within {key}.autoscale, "
                f"{limits.min} to {limits.max}"
            )


def _deterministic(c: RunConfig) -> None:
    if c.deterministic and c.max_staleness:
        raise ValueError(
            f"deterministic needs max_staleness 0, not {c.max_staleness}: what a sync falls into depends on how fast the "
            "machine is"
        )
    if c.deterministic and {*([c.generator.dtype] if c.generates else []), c.trainer.dtype} != {"float32"}:
        raise ValueError("deterministic needs generator.dtype and trainer.dtype float32")


def _refuse_owned(section: str, given: dict[str, Any], owned: dict[str, str]) -> None:
    for key, setting in owned.items():
        outer, _, inner = key.partition(".")
        if outer in given and (not inner or (isinstance(given[outer], dict) and inner in given[outer])):
            instead = f"; set {setting.format(pool=section.removesuffix('.engine'))} instead" if setting else ""
            raise ValueError(f"{section}.{key} is set by the pipeline itself{instead}")
