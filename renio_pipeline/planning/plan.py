"""A plan: from a configuration and what is known of models, engines and lengths, to step time, memory and the best split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.planning.known import Known
from renio_pipeline.planning.memory import BYTES, Engine, Use, engine, model_states, torch_teacher, trainer_rank
from renio_pipeline.planning.rates import Rates
from renio_pipeline.planning.schedule import Replayed, Split, Work, replay
from renio_pipeline.planning.search import Room, best_splits, sizes_up_to, with_gpus
from renio_pipeline.preflight import payload_token_bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a split gives."""

    split: Split
    gpus: float
    replayed: Replayed
    obstacles: tuple[str, ...] = ()  # why it cannot be run

    @property
    def per_gpu(self) -> float:
        """Samples a second of each GPU that it uses."""
        return self.replayed.samples_per_second / self.gpus


@dataclass(frozen=True)
class Planner:
    """Usage: ``Planner(config, known, gpus=64)``; then ``configured``, ``best``, ``by_size``, ``ahead``, and the memory."""

    config: RunConfig
    known: Known
    gpus: float | None = None  # None: those that the configured pools use
    gpus_per_node: int = 8

    @cached_property
    def work(self) -> Work:
        """What each step is given: lengths spread evenly over their distribution, in an order of the step's own."""
        config, known = self.config, self.known

        @cache
        def lengths(number: int) -> list[float]:
            return known.lengths.step(config.batch_size, number)

        return Work(
            lengths=lengths, prompt_tokens=known.sizes.prompt, teacher_prompt_tokens=known.sizes.teacher_prompt,
            max_staleness=config.max_staleness, in_flight=config.in_flight,
        )  # fmt: skip

    @cached_property
    def rates(self) -> Rates:
        """With no more slots than the generators' cache has room for."""
        rates, room = self.known.rates, self.generator.sequences
        slots = min(rates.generator.slots, max(1, int(min(room, 1e9))))
        return replace(rates, generator=replace(rates.generator, slots=slots))

    @cached_property
    def configured_split(self) -> Split:
        pools = self.config.pools
        teachers = sum(self.config.pool(name).replicas for name in self.config.teacher_pools.values())
        return Split(pools.generator.replicas, teachers, pools.trainer.replicas)

    @cached_property
    def room(self) -> Room:
        config = self.config
        first_teacher = next(iter(config.teacher_pools.values()))
        colocated = config.placement == "colocated"
        room = Room(
            gpus=math.inf, gpus_per_node=self.gpus_per_node, generator=self._width("generator"),
            teacher=self._width(first_teacher), rank=self._width("trainer"), teacher_pools=len(config.all_teachers),
            most_ranks=config.batch_size, colocated=colocated,
        )  # fmt: skip
        room = with_gpus(room, self.gpus if self.gpus is not None else room.used(self.configured_split))
        fitting = (n for n in range(1, room.most_ranks + 1) if self.rank(n).fits)
        return replace(room, least_ranks=next(fitting, room.most_ranks + 1))

    def _width(self, pool: str) -> float:
        """GPUs of a replica. A configuration without GPUs is planned as if each replica's worker had one."""
        section = self.config.generator if pool == "generator" else self.config.teacher
        return self.config.pool(pool).gpus or (1.0 if pool == "trainer" else float(section.tensor_parallel))

    @cached_property
    def configured(self) -> Answer:
        return self._answer(self.configured_split)

    @cached_property
    def best(self) -> list[Answer]:
        """The best splits, the first first; none if nothing fits."""
        if any(self.obstacles(None)):
            return []
        return [self._answered(split, found) for split, found in best_splits(self.rates, self.room, self.work)]

    @cached_property
    def by_size(self) -> list[Answer]:
        """The best split of smaller clusters, the largest first."""
        smallest = self.room.generator + self.room.teacher * self.room.teacher_pools + self.room.rank * self.room.least_ranks
        found = [] if not self.best else [self.best[0]]
        for gpus in sizes_up_to(self.room.gpus, smallest)[1:] if found else ():
            splits = best_splits(self.rates, with_gpus(self.room, gpus), self.work, count=1)
            found += [self._answered(*splits[0])] if splits else []
        return found

    @cached_property
    def ahead(self) -> Answer | None:
        """The best split, if generation went on while the trainer works; None where it does already, or cannot."""
        if self.config.max_staleness or self.room.colocated or not self.best or self.config.deterministic:
            return None
        work = replace(self.work, max_staleness=1, in_flight="keep")
        found = best_splits(self.rates, self.room, work, count=1)
        return self._answered(*found[0]) if found else None

    @cached_property
    def generator(self) -> Engine:
        sizes, config = self.known.sizes, self.config
        rank = sum(model_states(config.trainer, sizes.student, self.configured_split.ranks).values())
        if config.trainer.offload == "optimizer":
            rank -= model_states(config.trainer, sizes.student, self.configured_split.ranks)["optimizer"]
        return engine(
            config.generator, sizes.student, self.known.device, prompt=sizes.prompt, lengths=self.known.lengths,
            context=self.known.longest_prompt + config.max_response_tokens + 1, slots=self.known.rates.generator.slots,
            model_share=rank if config.placement == "colocated" else 0.0,
        )  # fmt: skip

    @cached_property
    def teachers(self) -> dict[str, Use]:
        """By the name of the pool."""
        config, known, found = self.config, self.known, dict[str, Use]()
        longest = known.longest_teacher_prompt + config.max_response_tokens + 1
        for (name, section), model in zip(config.all_teachers.items(), known.sizes.teachers, strict=True):
            pool = config.teacher_pools[name]
            if section.type == "torch":
                hidden = (
                    section.max_batch_tokens * model.hidden * BYTES[section.dtype] if config.payload_kind == "hidden" else 0
                )
                found[pool] = torch_teacher(section, model, known.device, longest, hidden)
            else:
                found[pool] = engine(
                    section,
                    model,
                    known.device,
                    prompt=longest,
                    lengths=None,
                    context=longest,
                    slots=256,
                    prompt_logits=config.payload_kind != "hidden",
                ).use
        return found

    def rank(self, ranks: int) -> Use:
        known = self.known
        longest = known.longest_prompt + self.config.max_response_tokens
        answered = known.sizes.response / known.sizes.sequence
        teachers = list(known.sizes.teachers)
        return trainer_rank(self.config, known.sizes.student, teachers, known.device, ranks, longest, answered)

    @cached_property
    def payload(self) -> int:
        """Bytes that a teacher sends of a token."""
        models = zip(self.config.all_teachers, self.known.sizes.teachers, strict=True)
        return max(payload_token_bytes(self.config, name, model.hidden) for name, model in models)

    @cached_property
    def host(self) -> dict[str, float]:
        """Bytes of host memory, on the nodes that have them."""
        config, known, student = self.config, self.known, self.known.sizes.student
        step = config.batch_size * self.payload * known.sizes.response
        lora = config.trainer.lora
        sent = student.factors(lora.targets, lora.r) if lora and config.sync.lora == "adapter" else student.parameters
        copy = sent * BYTES[config.generator.dtype] if config.sync.backend == "host" else 0.0
        states = model_states(config.trainer, student, 1)
        return {
            "object store: payload": min(step * (1 + config.max_staleness), config.payload.max_bytes),
            "object store: weights, on every node with generators": copy,
            "checkpoint, over all ranks' nodes": states["weights"] + states["optimizer"],
        }

    def obstacles(self, split: Split | None) -> list[str]:
        """Why a split cannot be run; without one, why none can."""
        found = []
        if not self.generator.fits:
            found.append(_too_large("a generator", self.generator.use, "raise generator.tensor_parallel (and its pool's gpus)"))
        for pool, use in self.teachers.items():
            if not use.fits:
                found.append(_too_large(f"pool {pool}: a replica", use, "use teacher.type=vllm with a tensor_parallel above 1"))
        ranks = split.ranks if split else max(self.room.most_ranks, 1)
        if not self.rank(ranks).fits:
            help = "raise trainer.zero_stage, lower trainer.micro_batch_tokens, or set trainer.gradient_checkpointing=true"
            found.append(_too_large(f"one of {ranks} trainer ranks", self.rank(ranks), help))
        config = self.config
        worst = config.batch_size * config.max_response_tokens * self.payload
        if worst > config.payload.max_bytes:
            found.append(
                f"a step's payload may take {worst} bytes, and payload.max_bytes is {config.payload.max_bytes}; raise it, or "
                "lower batch_size"
            )
        return found

    def _answer(self, split: Split) -> Answer:
        return self._answered(split, replay(self.rates, split, self.work), tuple(self.obstacles(split)))

    def _answered(self, split: Split, replayed: Replayed, obstacles: tuple[str, ...] = ()) -> Answer:
        return Answer(split=split, gpus=self.room.used(split), replayed=replayed, obstacles=obstacles)


def check(planner: Planner) -> None:
    """Raises ConfigError if no split of the GPUs fits; says what is too large, or how many GPUs it takes."""
    obstacles = planner.obstacles(None)
    if obstacles:
        raise ConfigError("no split fits:\n" + "\n".join(f"  {line}" for line in obstacles))
    if not planner.best:
        room = planner.room
        least = room.teacher * room.teacher_pools + room.rank * room.least_ranks + (0 if room.colocated else room.generator)
        raise ConfigError(
            f"--gpus: {room.gpus:g} given, and a generator, {room.teacher_pools} teacher(s) and {room.least_ranks} trainer "
            f"rank(s) take at least {least:g}, each replica on one node of {room.gpus_per_node} (--gpus-per-node)"
        )


def _too_large(what: str, use: Use, help: str) -> str:
    gib = 2.0**30
    parts = ", ".join(
        f"{name} {part / gib:.1f}" for name, part in sorted(use.parts.items(), key=lambda p: -p[1]) if part > gib / 20
    )
    return f"{what} needs {use.total / gib:.1f} GiB of a GPU ({parts}), and may have {use.limit / gib:.1f}; {help}"
