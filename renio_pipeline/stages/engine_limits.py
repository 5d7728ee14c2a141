"""How much a vLLM engine does at a time: what pools fill it to, and what a plan counts on.

A running pool takes the limits of the engines that it has. A plan has none yet, and follows the rule by which vLLM's offline
class chooses them from the device (vLLM 0.32, ``EngineArgs.get_batch_defaults``; a contract test compares the two).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Teacher
from renio_pipeline.run_dir.checkpoint_files import write_durably

FILE = "engines.json"  # in a run's directory
GIB = 2**30
TORCH_BATCH_TOKENS = 16384  # that a teacher without an engine scores in one call


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The limits of one engine."""

    sequences: int  # requests that are computed at a time: vLLM's max_num_seqs
    batched_tokens: int  # tokens of one engine step: vLLM's max_num_batched_tokens
    cache_tokens: int | None = None  # that the KV cache holds; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a pool's worker says of itself once it can work."""

    receivers: int = 1  # processes that receive weights: an engine's tensor-parallel workers
    limits: EngineLimits | None = None  # of its vLLM engine; None: it has none


def offline_limits(
    options: Mapping[str, Any], *, context: int, memory: float = 0.0, device: str = "", cpu_workers: int = 0
) -> EngineLimits:
    """The limits that vLLM's offline class gives an engine.

    Args:
        options: engine options that the user set; an explicit limit counts before the rule.
        context: tokens of the longest sequence (max_model_len).
        memory: bytes of the GPU; 0: not known, which vLLM treats as a small GPU.
        device: the GPU's name, in which vLLM looks for "a100".
        cpu_workers: tensor-parallel workers of an engine on CPUs; 0: it is on GPUs.
    """
    if cpu_workers:
        batched, sequences = 4096 * cpu_workers, 256 * cpu_workers
    elif memory >= 160 * GIB or (memory >= 70 * GIB and "a100" not in device.lower()):
        batched, sequences = 16384, 1024
    else:
        batched, sequences = 8192, 256
    factor = 2 if options.get("performance_mode") == "throughput" else 1
    given_sequences, given_batched = options.get("max_num_seqs"), options.get("max_num_batched_tokens")
    sequences = int(given_sequences or sequences * factor)
    if given_batched is None:
        batched *= factor
        if options.get("enable_chunked_prefill") is False:
            batched = max(batched, context)
        batched = min(batched, sequences * context)
    else:
        batched = int(given_batched)
    return EngineLimits(sequences=sequences if given_sequences else min(sequences, batched), batched_tokens=batched)


def batch_tokens(section: Teacher, limits: EngineLimits | None) -> int:
    """Tokens of prompts and responses that a teacher's replica scores in one call.

    Args:
        limits: of its vLLM engine; None: it has none.
    """
    return section.max_batch_tokens or (limits.batched_tokens if limits else TORCH_BATCH_TOKENS)


def record_limits(run: Path, limits: Mapping[str, EngineLimits]) -> None:
    """Write a run's ``engines.json``: the limits of each pool's engines, which a later plan counts on."""
    write_durably(run / FILE, json.dumps({pool: asdict(each) for pool, each in limits.items()}, indent=1))


def read_limits(run: Path) -> dict[str, EngineLimits]:
    """By the name of the pool.

    Empty for a run that has no such record, as those of earlier versions.

    Raises:
        ConfigError: the record cannot be read.
    """
    if not (run / FILE).exists():
        return {}
    try:
        return {pool: EngineLimits(**each) for pool, each in json.loads((run / FILE).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--from: {run / FILE}, which says how much the run's engines do at a time, cannot be read: {error}; remove it, "
            "and the limits that vLLM chooses for the device are assumed"
        ) from None
