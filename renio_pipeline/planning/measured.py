"""Rates and response lengths from a run's directory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.limits import Recorded, engine_limits
from renio_pipeline.planning.rates import GeneratorRate, TeacherRate, TrainerRate
from renio_pipeline.run_dir.batches import read_batches
from renio_pipeline.run_dir.json_lines import complete_lines
from renio_pipeline.run_dir.recorded_config import recorded_config
from renio_pipeline.stages.engine_limits import EngineLimits, batch_tokens, read_limits

SKIPPED = 2  # the first steps, in which engines warm up
STEPS = 50  # the newest ones, whose response lengths are read
Line = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measured rates and lengths of a run: medians over steps."""

    config: RunConfig
    generator: GeneratorRate | None  # None: nobody wrote
    teacher: TeacherRate | None  # None: the run had none, or only recorded ones
    trainer: TrainerRate
    sync_seconds: float
    weigh_seconds: float
    turn_seconds: float
    lengths: Lengths
    prompt: float
    teacher_prompt: float
    steps: int
    limits: Recorded  # the limits of the run's engines


def measured(run: Path) -> Measured:
    """Read ``config.yaml``, ``metrics.jsonl`` and ``batches.jsonl`` of a run, which may still be running.

    Raises:
        ConfigError: the folder is not a run directory, or the run has not trained a step yet.
    """
    for name in ("config.yaml", "metrics.jsonl"):
        if not (run / name).is_file():
            raise ConfigError(f"--from: {run} has no {name}: expected a run directory")
    config = recorded_config(run)
    lines = [line for line in complete_lines(run / "metrics.jsonl") if "loss" in line]
    if not lines:
        raise ConfigError(f"--from: {run} has not trained a step yet")
    lines = lines[SKIPPED:] or lines
    lengths = _lengths(run, lines)
    trained = [_trained(config, line) for line in lines]
    scored = [_trained(config, line, recorded=False) for line in lines]
    ranks = config.pools.trainer.replicas

    def prompt(name: str, samples: list[tuple[float, float]]) -> float:
        """What a sample has of these tokens beside its response."""
        return _median((line[name] - own) / max(n, 1.0) for line, (n, own) in zip(lines, samples, strict=True))

    def busy(line: Line, pool: str) -> float:
        return max(1e-9, (1 - line[f"idle/{pool}"]) * line["time/step"])

    recorded = Recorded(config, read_limits(run))
    limits = engine_limits(config, None, recorded, prompt=0, teacher_prompt=0)
    teacher = None
    for name, section in list(config.live_teachers.items())[:1]:
        teacher = TeacherRate(
            _median(line["tokens/scored"] / (busy(line, "teacher") * line["pool/teacher/size"]) for line in lines),
            batch_tokens(section, limits.get(config.teacher_pools[name])),
        )
    return Measured(
        config=config,
        generator=_generator(config.max_staleness, limits, lines, lengths, lambda line: busy(line, "generator")),
        teacher=teacher,
        trainer=TrainerRate(_median(line["tokens/trained"] / (line["time/train"] * ranks) for line in lines)),
        sync_seconds=_median(line["time/sync"] - line.get("time/sync_wait", 0.0) for line in lines),
        weigh_seconds=_median(line["time/weigh"] + _rest(config.max_staleness, line) for line in lines),
        turn_seconds=_median(line.get("time/turns", 0.0) for line in lines),
        lengths=lengths,
        prompt=prompt("tokens/trained", trained),
        teacher_prompt=prompt("tokens/scored", scored),
        steps=len(lines),
        limits=recorded,
    )


def _trained(config: RunConfig, line: Line, *, recorded: bool = True) -> tuple[float, float]:
    """The samples that a step trained on, and their response tokens, whoever wrote them.

    ``recorded``: with those that are recorded, which no teacher of the run read.
    """
    own, share = line["filter/drawn"] * line.get("filter/kept", 1.0), line.get("off_policy/fraction", 0.0)
    others = own * share / (1 - share) if share < 1 else config.batch_size
    if config.recorded_teachers and not recorded:
        others = 0
    return own + others, own * line.get("response/tokens", 0.0) + others * line.get("off_policy/tokens", 0.0)


def differences(run: RunConfig, config: RunConfig) -> list[str]:
    """The keys that affect a stage's speed and that were different in the run."""
    keys = (
        "student", "generator.dtype", "generator.tensor_parallel", "teacher.model", "teacher.type", "teacher.dtype",
        "teacher.tensor_parallel", "teachers", "objective.type", "trainer.dtype", "trainer.zero_stage",
        "trainer.gradient_checkpointing", "trainer.lora", "sync.backend", "sync.lora", "placement",
    )  # fmt: skip
    return [key for key in keys if attrgetter(key)(run) != attrgetter(key)(config)]


def _generator(
    max_staleness: int, limits: Mapping[str, EngineLimits], lines: list[Any], lengths: Lengths, busy: Callable[[Line], float]
) -> GeneratorRate | None:
    """The generator's rate at each number of concurrent responses; steps with different pool sizes give several points.

    The metrics do not contain the number of responses in flight at each moment. If the responses of a step all begin
    together, their number falls as they end: the time per token is then that of the longest response, and is assumed to be
    constant.
    """
    slots = limits["generator"].sequences
    lines = [line for line in lines if line["filter/drawn"]]
    if not lines:
        return None
    points: dict[int, list[float]] = {}
    for line in lines:
        size, drawn = max(1.0, line["pool/generator/size"]), line["filter/drawn"]
        rate = line["tokens/generated"] / (size * busy(line))
        if drawn / size <= slots and not max_staleness:
            rate *= lengths.quantiles[int((1 - 0.5 / drawn) * len(lengths.quantiles))] / lengths.mean
        points.setdefault(max(1, round(min(slots, drawn / size))), []).append(rate)
    return GeneratorRate(slots, {n: statistics.median(rates) for n, rates in points.items()})


def _lengths(run: Path, lines: list[Any]) -> Lengths:
    seen = [float(n) for batch in list(read_batches(run).values())[-STEPS:] for n in batch.tokens]
    if seen:
        return Lengths.of(seen, f"{len(seen)} responses of {run}")
    return Lengths.of(
        [line.get("response/tokens", line.get("off_policy/tokens", 0.0)) for line in lines], f"mean lengths of {run}'s steps"
    )


def _rest(max_staleness: int, line: Line) -> float:
    """The seconds of a step in which no stage works: the driver's overhead. It is not visible if steps overlap."""
    stages = ("start", "first_response", "score", "weigh", "turns", "train", "sync")
    return 0.0 if max_staleness else max(0.0, line["time/step"] - sum(line.get(f"time/{s}", 0.0) for s in stages))


def _median(values: Iterable[float]) -> float:
    return max(0.0, float(statistics.median(values)))
