"""Where pools are, how weights get from one to another, and who waits for whom."""

from __future__ import annotations

from renio_pipeline.config.run_config import RunConfig


def check_sync(c: RunConfig) -> None:
    """How weights get to the generators."""
    if c.follow and c.sync.backend != "host":
        raise ValueError(f"method.teacher {c.follow.teacher} needs sync.backend=host, not {c.sync.backend}")
    if c.sync.backend != "host" and not (c.pools.generator.gpus and c.pools.trainer.gpus):
        raise ValueError(
            f"sync.backend {c.sync.backend!r} moves weights between GPUs, but pools.generator.gpus or "
            "pools.trainer.gpus is 0; use host, or give both pools GPUs"
        )


def check_ipc(c: RunConfig) -> None:
    """CUDA handles need both ends in one process tree."""
    if c.sync.backend == "ipc" and c.generator.separate_process:
        raise ValueError(
            "sync.backend ipc hands over CUDA memory handles, which vLLM cannot send to an engine in a process of its own; set "
            "generator.separate_process=false, or sync.backend=host"
        )


def check_placement(c: RunConfig) -> None:
    """Pools that share GPUs, and pools that do not."""
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


def check_schedule(c: RunConfig) -> None:
    """Who waits for whom, and how pools grow."""
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


def check_deterministic(c: RunConfig) -> None:
    """What repeats digit for digit only under conditions."""
    if c.deterministic and c.max_staleness:
        raise ValueError(
            f"deterministic needs max_staleness 0, not {c.max_staleness}: what a sync falls into depends on how fast the "
            "machine is"
        )
    if c.deterministic and {*([c.generator.dtype] if c.generates else []), c.trainer.dtype} != {"float32"}:
        raise ValueError("deterministic needs generator.dtype and trainer.dtype float32")
