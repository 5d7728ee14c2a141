"""Finds the split of the GPUs with the shortest step."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from renio_pipeline.planning.rates import AT_ONCE, Rates, TrainerRate
from renio_pipeline.planning.schedule import replay
from renio_pipeline.planning.workload import Replayed, Split, Work

NEAR = 1.01  # a split whose possible gain is smaller is not replayed
MOST = 150  # splits that are replayed; they come in the order of their bounds, so later ones hardly ever win
FINE = 16  # replicas up to which every number is tried; beyond, only numbers that differ by a few percent


@dataclass(frozen=True, kw_only=True)
class Room:
    """The available GPUs, and the GPUs that a replica of each pool takes."""

    gpus: float
    gpus_per_node: int = 8
    generator: float = 1.0
    teacher: float = 1.0
    rank: float = 1.0
    teacher_pools: int = 1  # all get the same number of replicas; 0: the run has no teacher
    least_ranks: int = 1  # with fewer, a rank's share of the model does not fit into memory
    most_ranks: int = 1  # with more, some ranks would have no sample
    colocated: bool = False  # a generator shares the GPU of each rank
    generators: int | None = None  # how many there are, whatever the rest; None: as many as there is room for

    @property
    def least(self) -> float:
        """The GPUs of the smallest split."""
        generators = 0.0 if self.colocated else self.generator * (1 if self.generators is None else self.generators)
        return generators + self.teacher * self.teacher_pools + self.rank * self.least_ranks

    def used(self, split: Split) -> float:
        generators = 0.0 if self.colocated else split.generators * self.generator
        return generators + split.teachers * self.teacher + split.ranks * self.rank

    def holds(self, split: Split) -> bool:
        """Whether every replica gets all its GPUs on one node."""
        if self.used(split) > self.gpus + 1e-9:
            return False
        wanted = [self.teacher] * split.teachers + [self.rank] * split.ranks
        wanted += [] if self.colocated else [self.generator] * split.generators
        whole, rest = divmod(self.gpus, self.gpus_per_node)
        nodes = [-float(self.gpus_per_node)] * int(whole) + ([-rest] if rest else [])
        heapq.heapify(nodes)
        for width in sorted(wanted, reverse=True):  # the widest first, each on the emptiest node
            if not nodes or -nodes[0] + 1e-9 < width:
                return False
            heapq.heapreplace(nodes, nodes[0] + width)
        return True

    def splits(self) -> Iterator[Split]:
        """The splits that leave no room for another generator, because one more never makes a step longer."""
        for ranks in _counts(self.least_ranks, 1, self.most_ranks):
            left = self.gpus - ranks * self.rank
            if self.generators is not None:
                yield Split(ranks if self.colocated else self.generators, self.teacher_pools, ranks)
                continue
            if not self.teacher:  # none, or served elsewhere: then a replica of each is enough
                generators = ranks if self.colocated else int((left + 1e-9) / self.generator)
                if generators > 0 and left > -1e-9:
                    yield Split(generators, self.teacher_pools, ranks)
                continue
            if self.colocated:
                teachers = int((left + 1e-9) / (self.teacher * self.teacher_pools)) * self.teacher_pools
                if teachers > 0:
                    yield Split(ranks, teachers, ranks)
                continue
            for teachers in _counts(self.teacher_pools, self.teacher_pools, (left - self.generator) / self.teacher):
                yield Split(int((left - teachers * self.teacher + 1e-9) / self.generator), teachers, ranks)


def _counts(first: int, each: int, most: float) -> Iterator[int]:
    """Numbers from ``first`` to ``most`` in steps of ``each``, and in larger steps for large numbers."""
    count = first
    while count <= most + 1e-9:
        yield count
        count += each * max(1, count // (FINE * each))


def least_seconds(rates: Rates, split: Split, work: Work, writing: float) -> float:
    """A lower bound on the step time of this split: the work of each stage, and the path through a single step.

    Args:
        writing: the seconds in which these generators write a step if they do nothing else.
    """
    tokens = work.lengths(1)
    count, written = len(tokens), sum(tokens)
    read = written + count * work.teacher_prompt_tokens if split.teachers else 0.0
    scored = read / (max(1, split.teachers) * rates.teacher.tokens_per_second)
    longest = max(tokens) + work.prompt_tokens
    learned = rates.trainer.seconds(written + count * work.prompt_tokens, longest, split.ranks)
    learned += rates.weigh_seconds + rates.sync_seconds + rates.turn_seconds + rates.between_seconds
    last = rates.teacher.seconds(min(tokens) + work.teacher_prompt_tokens) if split.teachers else 0.0
    collected = max(writing + last, scored)
    if work.max_staleness == 0:
        return collected + learned
    own = sum(work.written(1))
    work_of_generators = own / (split.generators * rates.generator.best) + rates.sync_seconds
    return max(work_of_generators, scored, learned, (collected + learned) / (1 + work.max_staleness))


def writing_seconds(rates: Rates, generators: int, work: Work) -> float:
    """The mean seconds in which this many generators write a step if they do nothing else."""
    at_once = replace(rates, teacher=AT_ONCE, trainer=TrainerRate(AT_ONCE.tokens_per_second))
    alone = replace(at_once, sync_seconds=0.0, weigh_seconds=0.0, turn_seconds=0.0, between_seconds=0.0)
    return replay(alone, Split(generators, 0, 1), replace(work, max_staleness=0)).step


def best_splits(rates: Rates, room: Room, work: Work, count: int = 3) -> list[tuple[Split, Replayed]]:
    """The fastest splits, best first; empty if none fits.

    Splits are replayed in the order of their lower bounds, until no significantly better one can follow.
    """
    writing = cache(lambda generators: writing_seconds(rates, generators, work))
    bounded = sorted(
        ((least_seconds(rates, split, work, writing(split.generators)), split) for split in room.splits()),
        key=lambda found: (found[0], room.used(found[1])),
    )
    found: list[tuple[Split, Replayed]] = []
    looks = 0
    for bound, split in bounded:
        if looks == MOST or (len(found) >= count and NEAR * bound >= found[count - 1][1].step):
            break
        if room.holds(split):
            looks += 1
            found.append((split, replay(rates, split, work)))
            found = _sorted(found, room)[:count]
    return found


def sizes_up_to(gpus: float, step: float) -> list[float]:
    """The sizes of smaller clusters to examine: successive halves, as long as there is a choice of splits."""
    sizes = [gpus]
    while sizes[-1] / 2 >= step:
        sizes.append(float(int(sizes[-1] / 2)))
    return sizes


def with_gpus(room: Room, gpus: float) -> Room:
    """The same demands with another number of GPUs."""
    others = room.least - room.rank * room.least_ranks
    return replace(room, gpus=gpus, most_ranks=min(room.most_ranks, max(1, int((gpus - others) / room.rank))))


def _sorted(found: Sequence[tuple[Split, Replayed]], room: Room) -> list[tuple[Split, Replayed]]:
    return sorted(found, key=lambda f: (f[1].step, room.used(f[0])))
