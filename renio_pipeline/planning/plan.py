"""A plan: from a configuration and what is known about models, engines and lengths to step time, memory and the best split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from statistics import fmean

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.planning.known import Known
from renio_pipeline.planning.needs import Needs
from renio_pipeline.planning.rates import Rates
from renio_pipeline.planning.schedule import replay
from renio_pipeline.planning.search import Room, best_splits, sizes_up_to, with_gpus
from renio_pipeline.planning.workload import Replayed, Split, Work


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The prediction for a split."""

    split: Split
    gpus: float
    replayed: Replayed
    obstacles: tuple[str, ...] = ()  # why the split cannot run

    @property
    def per_gpu(self) -> float:
        """Samples per second and GPU."""
        return self.replayed.samples_per_second / self.gpus


@dataclass(frozen=True)
class Planner:
    """Usage: ``Planner(config, known, gpus=64)``; then ``configured``, ``best``, ``by_size``, ``ahead``, and the memory."""

    config: RunConfig
    known: Known
    gpus: float | None = None  # None: as many as the configured pools use
    gpus_per_node: int = 8

    @cached_property
    def needs(self) -> Needs:
        return Needs(self.config, self.known)

    @cached_property
    def work(self) -> Work:
        """The work of each step: lengths evenly spaced over their distribution, in an order that depends on the step."""
        config, known = self.config, self.known

        @cache
        def lengths(number: int) -> list[float]:
            return known.lengths.step(config.batch_size, number)

        return Work(
            lengths=lengths,
            prompt_tokens=known.sizes.prompt,
            teacher_prompt_tokens=known.sizes.teacher_prompt,
            off_policy=config.off_policy_share,
            max_staleness=config.max_staleness,
            in_flight=config.in_flight,
        )

    @cached_property
    def rates(self) -> Rates:
        """The rates of all stages, with at most as many slots as the generators' cache has room for."""
        rates, room = self.known.rates, self.needs.generator.sequences
        slots = min(rates.generator.slots, max(1, int(min(room, 1e9))))
        return replace(rates, generator=replace(rates.generator, slots=slots))

    @cached_property
    def configured_split(self) -> Split:
        pools = self.config.pools
        teachers = sum(self.config.pool(name).replicas for name in self.config.teacher_pools.values())
        return Split(pools.generator.replicas if self.config.generates else 0, teachers, pools.trainer.replicas)

    @cached_property
    def room(self) -> Room:
        config = self.config
        room = Room(
            gpus=math.inf,
            gpus_per_node=self.gpus_per_node,
            generator=self._width("generator"),
            teacher=self._width(*config.teacher_pools.values()),
            rank=self._width("trainer"),
            teacher_pools=len(config.all_teachers),
            most_ranks=config.batch_size,
            colocated=config.placement == "colocated",
            generators=self.configured_split.generators if config.on_solutions else None,
        )
        room = with_gpus(room, self.gpus if self.gpus is not None else room.used(self.configured_split))
        fitting = (n for n in range(1, room.most_ranks + 1) if self.needs.rank(n).fits)
        return replace(room, least_ranks=next(fitting, room.most_ranks + 1))

    def _width(self, *pools: str) -> float:
        """The GPUs of a replica, averaged over the pools. A replica without GPUs is counted as if it had one; that of
        a teacher that is served elsewhere has none."""
        config = self.config
        parallel = {"generator": config.generator.tensor_parallel}
        parallel |= {
            config.teacher_pools[name]: 0 if teacher.type == "http" else teacher.tensor_parallel
            for name, teacher in config.all_teachers.items()
        }
        return fmean([config.pool(pool).gpus or float(parallel.get(pool, 1)) for pool in pools] or [0.0])

    @cached_property
    def configured(self) -> Answer:
        return self._answer(self.configured_split)

    @cached_property
    def best(self) -> list[Answer]:
        """The best splits, best first; empty if nothing fits."""
        if self.needs.obstacles(self.room.most_ranks):
            return []
        return [self._answered(split, found) for split, found in best_splits(self.rates, self.room, self.work)]

    @cached_property
    def by_size(self) -> list[Answer]:
        """The best split of each smaller cluster, the largest cluster first."""
        found = [] if not self.best else [self.best[0]]
        for gpus in sizes_up_to(self.room.gpus, self.room.least)[1:] if found else ():
            splits = best_splits(self.rates, with_gpus(self.room, gpus), self.work, count=1)
            found += [self._answered(*splits[0])] if splits else []
        return found

    @cached_property
    def ahead(self) -> Answer | None:
        """The best split if generation continued while the trainer works; None if it already does, or cannot."""
        if (
            self.config.max_staleness
            or self.config.on_solutions
            or self.room.colocated
            or not self.best
            or self.config.deterministic
        ):
            return None
        work = replace(self.work, max_staleness=1, in_flight="keep")
        found = best_splits(self.rates, self.room, work, count=1)
        return self._answered(*found[0]) if found else None

    def _answer(self, split: Split) -> Answer:
        return self._answered(split, replay(self.rates, split, self.work), tuple(self.needs.obstacles(split.ranks)))

    def _answered(self, split: Split, replayed: Replayed, obstacles: tuple[str, ...] = ()) -> Answer:
        return Answer(split=split, gpus=self.room.used(split), replayed=replayed, obstacles=obstacles)


def check(planner: Planner) -> None:
    """Raises ConfigError if no split of the GPUs fits, with what is too large or how many GPUs are needed."""
    obstacles = planner.needs.obstacles(planner.room.most_ranks)
    if obstacles:
        raise ConfigError("no split fits:\n" + "\n".join(f"  {line}" for line in obstacles))
    if not planner.best:
        room = planner.room
        generators = "a generator" if room.generators is None else f"{room.generators} generator(s)"
        raise ConfigError(
            f"--gpus: {room.gpus:g} given, but {generators}, {room.teacher_pools} teacher(s) and {room.least_ranks} trainer "
            f"rank(s) need at least {room.least:g}, each replica on one node of {room.gpus_per_node} (--gpus-per-node)"
        )
