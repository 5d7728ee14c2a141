"""vLLM options that pass every check of vLLM's own and break what this pipeline assumes of its engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORKERS = "the pipeline counts an engine's workers by its tensor parallelism alone, so weights would not reach all of them"
_ENGINES = "data parallelism is the pool's: every engine has requests, weights and a place of its own"
_DRAFT = "speculative decoding is not part of what is synchronised and tested: a draft model would keep its old weights"
REFUSED: dict[str, tuple[str, str]] = {  # option -> why, and what to do
    "pipeline_parallel_size": (_WORKERS, "raise {pool}.tensor_parallel"),
    "prefill_context_parallel_size": (_WORKERS, "raise {pool}.tensor_parallel"),
    "nnodes": (_WORKERS, "a replica lies on one node; raise pools.*.replicas"),
    "node_rank": (_WORKERS, "a replica lies on one node; raise pools.*.replicas"),
    "device_ids": ("Ray assigns a replica its GPUs", "use pools.*.gpus and pools.*.labels"),
    "worker_cls": ("weights, temperature and vocabulary are set through vLLM's own worker", "leave it out"),
    "enable_batch_sharded_sampling": (
        "sharded sampling does not see the vocabulary's trim, so tokens that the teacher lacks would be sampled", "leave it out"
    ),
    "speculative_config": (_DRAFT, "leave it out"),
    "spec_method": (_DRAFT, "leave it out"),
    "spec_model": (_DRAFT, "leave it out"),
    "spec_tokens": (_DRAFT, "leave it out"),
}  # fmt: skip
REFUSED_PREFIXES: dict[str, tuple[str, str]] = {"data_parallel_": (_ENGINES, "leave it out, and raise pools.*.replicas")}
_STALE = "keys and values that leave the engine's own cache outlive a weight sync, and are read again under the new weights"
REFUSED_WITH_SYNC: dict[str, tuple[str, str]] = {  # where the engine's weights change
    "kv_transfer_config": (_STALE, "leave it out"),
    "kv_offloading_size": (_STALE, "leave it out"),
    "kv_offloading_backend": (_STALE, "leave it out"),
}


GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES")


def refuse_gpu_variables(pool: str, env: Mapping[str, str]) -> None:
    """Raise ValueError if a pool's environment (``pool``: its section) chooses GPUs, which all of its replicas would share."""
    for variable in GPU_VARIABLES:
        if variable in env:
            raise ValueError(
                f"{pool}.env.{variable}: Ray assigns each replica its GPUs, and this would give all of them the same; leave it "
                f"out, and use {pool}.gpus and {pool}.labels"
            )


def refuse_breaking(section: str, options: Mapping[str, Any], *, receives_weights: bool) -> None:
    """Raise ValueError for the first option that breaks an assumption; names it, the assumption and what to do.

    Args:
        section: where the options are in the configuration, such as "generator.engine".
        receives_weights: the engine's weights change during the run.
    """
    reasons = REFUSED | (REFUSED_WITH_SYNC if receives_weights else {})
    for key, value in options.items():
        prefix = next((p for p in REFUSED_PREFIXES if key.startswith(p)), None)
        found = reasons.get(key) or (REFUSED_PREFIXES[prefix] if prefix else None)
        if found is None or _neutral(key, value):
            continue
        why, instead = found
        raise ValueError(f"{section}.{key} ({value!r}): {why}; {instead.format(pool=section.removesuffix('.engine'))}")


def _neutral(key: str, value: Any) -> bool:
    """Whether a value switches the option off, or says what holds anyway."""
    usual = {"node_rank": 0, "nnodes": 1}.get(key, 1 if key.endswith("parallel_size") else None)
    return value is None or value is False or (usual is not None and value == usual)
