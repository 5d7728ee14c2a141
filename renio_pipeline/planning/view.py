"""A plan as tables for a person, and as JSON for a program."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from renio_pipeline.config import RunConfig
from renio_pipeline.planning import estimate
from renio_pipeline.planning.devices import GIB
from renio_pipeline.planning.memory import Use
from renio_pipeline.planning.plan import Answer, Planner

SPLIT = ("GPUs", "gen", "tea", "rank", "step s", "samples/s", "a GPU")
CLOSE = 0.01  # relative difference below which two clusters' rates count as equal


def plan_view(planner: Planner) -> RenderableType:
    """Memory, splits, smaller clusters, and the lines to paste."""
    return Group(*_sources(planner), _memory(planner), _splits(planner), _by_size(planner), *_advice(planner))


def plan_json(planner: Planner) -> dict[str, Any]:
    """The plan for programs: seconds, bytes, and shares from 0 to 1; null if no device sets a limit."""
    known = planner.known
    uses = {
        **({"generator": planner.needs.generator.use} if planner.config.generates else {}),
        **planner.needs.teachers,
        "trainer": planner.needs.rank(planner.best[0].split.ranks),
    }
    return {
        "sources": known.sources,
        "models": {key: asdict(model) for key, model in _models(planner).items()},
        "memory": {name: {"parts": use.parts, "limit": _finite(use.limit), "fits": use.fits} for name, use in uses.items()},
        "generator_slots": planner.rates.generator.slots,
        "host_memory": planner.needs.host,
        "configured": _answer_json(planner.configured),
        "best": [_answer_json(answer) for answer in planner.best],
        "by_size": [_answer_json(answer) for answer in planner.by_size],
        "ahead": _answer_json(planner.ahead) if planner.ahead else None,
        "overrides": overrides(planner, planner.best[0]),
    }


def overrides(planner: Planner, answer: Answer) -> list[str]:
    """The ``key=value`` overrides that make a configuration use a split."""
    config, split, room = planner.config, answer.split, planner.room
    each = split.teachers // max(1, room.teacher_pools)
    found = [f"pools.generator.replicas={split.generators}"] if config.generates else []
    for pool in config.teacher_pools.values():
        found.append(f"pools.{config.pool_key(pool)}.replicas={each}")
    found.append(f"pools.trainer.replicas={split.ranks}")
    return list(dict.fromkeys(found))


def _models(planner: Planner) -> dict[str, Any]:
    sizes = planner.known.sizes
    return {"student": sizes.student, **dict(zip(planner.config.teacher_pools.values(), sizes.teachers, strict=True))}


def _sources(planner: Planner) -> list[RenderableType]:
    models = (f"{key} {m.name}, {_count(m.parameters)} parameters" for key, m in _models(planner).items())
    lines = ["; ".join(models), *(f"{what}: {source}" for what, source in planner.known.sources.items())]
    return [Text(line, overflow="fold") for line in lines]


def _memory(planner: Planner) -> Table:
    device = planner.known.device
    table = _table("", "GiB", "may have", title=f"memory of a GPU{f' ({device.name})' if device else ''}, GiB")
    table.add_column("made of", overflow="fold")

    def row(name: str, use: Use, note: str = "") -> None:
        parts = sorted(use.parts.items(), key=lambda part: -part[1])
        made = ", ".join(f"{part} {_gib(size)}" for part, size in parts if size > 0.005 * use.total)
        style = "" if use.fits else "red"
        table.add_row(name, _gib(use.total), _gib(use.limit), made + note, style=style)

    if planner.config.generates:
        engine = planner.needs.generator
        cached = "" if math.isinf(engine.sequences) else f"; the rest caches {engine.sequences:.0f} responses"
        row("generator", engine.use, cached)
    for name, use in planner.needs.teachers.items():
        row(name, use)
    for ranks in sorted({planner.configured.split.ranks, planner.best[0].split.ranks}):
        row(f"trainer rank, of {ranks}", planner.needs.rank(ranks))
    for name, size in planner.needs.host.items():
        if size:
            table.add_row("host", _gib(size), "", name)
    return table


def _splits(planner: Planner) -> Table:
    table = _table("", *SPLIT, "idle: gen", "tea", "rank", title=f"splits of {planner.room.gpus:g} GPUs")
    table.caption = _caption(planner)
    for name, answer in zip(("best", "next", "next"), planner.best, strict=False):
        table.add_row(*_row(name, answer), style="bold" if name == "best" else "")
    table.add_row(*_row("configured", planner.configured), style="red" if planner.configured.obstacles else "")
    if planner.ahead:
        table.add_row(*_row("ahead *", planner.ahead))
    return table


def _row(name: str, answer: Answer) -> list[str]:
    idle = answer.replayed.idle
    return [
        name,
        *_figures(answer),
        *(f"{idle[pool]:.0%}" if pool in idle else "-" for pool in ("generator", "teacher", "trainer")),
    ]


def _figures(answer: Answer) -> list[str]:
    found, split = answer.replayed, answer.split
    sizes = (f"{answer.gpus:g}", str(split.generators), str(split.teachers), str(split.ranks))
    return [*sizes, *map(_short, (found.step, found.samples_per_second, answer.per_gpu))]


def _table(first: str, *columns: str, title: str) -> Table:
    """A table without borders, to fit into 80 characters."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, title=title, title_justify="left", caption_justify="left")
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _caption(planner: Planner) -> str:
    room = planner.room
    lines = [f"a generator takes {room.generator:g} GPUs, a teacher {room.teacher:g}, a rank {room.rank:g}"]
    lines[0] += "; a generator and a rank share theirs" if room.colocated else ""
    if not planner.config.pools.trainer.gpus:
        lines.append("(pools.*.gpus are 0: replicas without GPUs are counted as if they had one)")
    if planner.ahead:
        lines.append("* the best split with max_staleness=1 in_flight=keep: generation continues while the ranks train")
    return "\n".join(lines)


def _by_size(planner: Planner) -> Table:
    table = _table("", *SPLIT, title="best splits of fewer GPUs")
    for answer in planner.by_size:
        table.add_row("", *_figures(answer))
    return table


def _advice(planner: Planner) -> list[RenderableType]:
    best, lines = planner.best[0], list[str]()
    lines.append(f"slowest: {limit_of(best, planner)}")
    thrifty = max(planner.by_size, key=lambda answer: answer.per_gpu)
    if thrifty.per_gpu > (1 + CLOSE) * best.per_gpu:
        share = thrifty.replayed.samples_per_second / best.replayed.samples_per_second
        lines.append(
            f"most samples/s per GPU: {thrifty.gpus:g} GPUs, {thrifty.per_gpu / best.per_gpu:.2g} times as many as with "
            f"{best.gpus:g}; they reach {share:.0%} of its samples/s"
        )
    lines += not_modelled(planner.config)
    lines += [f"configured, does not fit: {obstacle}" for obstacle in planner.configured.obstacles]
    if any(source.startswith("estimated") for source in planner.known.sources.values()):
        lines.append(
            f"estimates assume {estimate.DECODE_BANDWIDTH:.0%} of the memory's bandwidth while tokens are written, and "
            f"{estimate.PREFILL:.0%} of the arithmetic in scoring, {estimate.TRAINING:.0%} in training: better to measure, "
            "with --from"
        )
    lines.append("to use the best split: " + " ".join(overrides(planner, best)))
    return [Text(line, overflow="fold") for line in lines]


def not_modelled(config: RunConfig) -> list[str]:
    """What a step's time also depends on, and the plan does not know."""
    found = []
    if config.filter != "all":
        found.append(f"filter {config.filter} is not modelled: if it drops responses, more of them are written than here")
    if config.data.off_policy.share and config.data.off_policy.source == "teacher":
        found.append("data.off_policy.source teacher is not modelled: teachers take the time to write that share of the batch")
    if config.own_tokenizers:
        found.append(
            f"{config.teacher_key(config.own_tokenizers[0], 'tokenizer')} own: a response is counted in the student's tokens, "
            "also where the teacher reads it in its own"
        )
    return found


def limit_of(answer: Answer, planner: Planner) -> str:
    """What a step waits for, the largest share first."""
    found = answer.replayed
    if planner.config.max_staleness:
        return f"the pool {min(found.idle, key=lambda name: found.idle[name])}, which is the least idle"
    shares = ((seconds / found.step, what) for what, seconds in found.parts.items())
    return ", ".join(f"{what} {share:.0%}" for share, what in sorted(shares, reverse=True) if share > 0.005)


def _answer_json(answer: Answer) -> dict[str, Any]:
    found = answer.replayed
    return {
        "generators": answer.split.generators, "teachers": answer.split.teachers, "trainer_ranks": answer.split.ranks,
        "gpus": answer.gpus, "step_seconds": found.step, "samples_per_second": found.samples_per_second,
        "samples_per_second_per_gpu": answer.per_gpu, "idle": found.idle, "slots_idle": found.slots_idle,
        "obstacles": list(answer.obstacles),
    }  # fmt: skip


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.3g} B" if parameters >= 1e9 else f"{parameters / 1e6:.3g} M"


def _gib(size: float) -> str:
    return "-" if math.isinf(size) else f"{size / GIB:.3g}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
