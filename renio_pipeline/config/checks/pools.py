"""Pools' resources and engines, and the trainer's adapters."""

from __future__ import annotations

from renio_pipeline.config import schema
from renio_pipeline.config.checks.owned import refuse_owned
from renio_pipeline.config.engine_refusals import refuse_breaking, refuse_gpu_variables
from renio_pipeline.config.run_config import RunConfig


def check_pools(c: RunConfig) -> None:
    """GPUs and engines of each pool."""
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
        refuse_owned(f"{key}.engine", section.engine, schema.OWNED_ENGINE_KEYS)
        refuse_breaking(f"{key}.engine", section.engine, receives_weights=key == "generator" or c.follow is not None)
    for name in c.pool_names:
        refuse_gpu_variables(f"pools.{c.pool_key(name)}", c.pool(name).env)
    if not (c.pools.trainer.cpus or c.pools.trainer.gpus):
        raise ValueError("pools.trainer.cpus and pools.trainer.gpus are both 0: a rank needs one of them to be placed by")


def check_lora(c: RunConfig) -> None:
    """Adapters, and what needs one."""
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
