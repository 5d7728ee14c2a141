"""The schedule of the step loop, replayed in virtual time: when each response is generated, scored and trained on.

Work is dispatched as in ``actors.pools.generators`` and ``actors.pools.teachers``, and steps are collected ahead of the trainer
as in ``renio_pipeline.loop.lookahead``. Engines take the time that their rates give; everything else takes no time.
"""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from collections.abc import Callable, Sequence

from renio_pipeline.planning.rates import Rates
from renio_pipeline.planning.workload import BatchedEngine, Replayed, Split, Work

COUNTED = 4  # measured steps, after the pipeline has filled and before it empties


def replay(rates: Rates, split: Split, work: Work, counted: int = COUNTED, *, after: int | None = None) -> Replayed:
    """Replay a run and measure ``counted`` steps in the steady state.

    Args:
        after: the last step before the measured ones; None: as many steps as the pipeline needs to fill.
    """
    if after is None:
        after = work.max_staleness + 2 if work.max_staleness else 0
    return _Replay(rates, split, work, counted, after).run()


class _Replay:
    def __init__(self, rates: Rates, split: Split, work: Work, counted: int, after: int) -> None:
        self.rates, self.split, self.work = rates, split, work
        self.first = after  # measuring starts at the end of this step
        self.last = self.first + counted
        self.final = self.last + work.max_staleness
        self.events: list[tuple[float, int, Callable[..., None], tuple[int, ...]]] = []
        self.now, self.order = 0.0, 0
        self.engines = [BatchedEngine(rates.generator) for _ in range(split.generators)]
        self.queue: deque[tuple[float, int]] = deque()  # (tokens, step)
        self.in_flight, self.holding, self.draining = 0, False, False
        self.to_score: list[tuple[int, int, float]] = []  # heap of (step, order, tokens)
        self.free = list(range(split.teachers))
        self.scored: dict[int, int] = {}
        self.sizes: dict[int, tuple[int, float, float]] = {}  # step -> samples, tokens, longest
        self.opened, self.step, self.training = 0, 1, False
        self.ends = [0.0]
        self.teacher_busy, self.trainer_busy = 0.0, 0.0
        self.marks: dict[int, tuple[float, float, float, float]] = {}
        self.last_written: dict[int, float] = {}
        self.begun: dict[int, float] = {}  # when a step was complete, and the ranks free

    def run(self) -> Replayed:
        self.mark(0)
        self.learned(0)
        while self.step <= self.final:
            self.now, _, act, arguments = heapq.heappop(self.events)
            act(*arguments)
        before, after = self.marks[self.first], self.marks[self.last]
        seconds = self.ends[self.last] - self.ends[self.first]
        busy, slot_seconds, scoring, training = (b - a for a, b in zip(before, after, strict=True))
        shares = {
            **({"generator": busy / (self.split.generators * seconds)} if self.split.generators else {}),
            **({"teacher": scoring / (self.split.teachers * seconds)} if self.split.teachers else {}),
            "trainer": training / seconds,
        }
        counted = range(self.first + 1, self.last + 1)
        return Replayed(
            steps=tuple(self.ends[n] - self.ends[n - 1] for n in counted),
            samples=statistics.fmean(self.sizes[n][0] for n in counted),
            idle={name: max(0.0, 1 - share) for name, share in shares.items()},
            parts=self.parts(counted),
            slots_idle=max(0.0, 1 - slot_seconds / (max(1, self.split.generators) * self.rates.generator.slots * seconds)),
        )

    def parts(self, counted: range) -> dict[str, float]:
        rates = self.rates
        written = [self.last_written[n] - self.ends[n - 1] for n in counted]
        scored = [self.begun[n] - self.last_written[n] for n in counted]
        trained = [rates.trainer.seconds(*self.sizes[n][1:], self.split.ranks) for n in counted]
        others = {"weight sync": rates.sync_seconds, "weighing": rates.weigh_seconds, "turns": rates.turn_seconds}
        means = {"writing": written, "scoring of the last ones": scored, "training": trained}
        return {name: statistics.fmean(values) for name, values in means.items()} | others

    def at(self, seconds: float, act: Callable[..., None], *arguments: int) -> None:
        self.order += 1
        heapq.heappush(self.events, (seconds, self.order, act, arguments))

    def learned(self, step: int) -> None:
        """Open the steps that may be collected once this step has been trained on."""
        for number in range(self.opened + 1, min(step + 1 + self.work.max_staleness, self.final) + 1):
            tokens = self.work.lengths(number)
            longest = max(tokens) + self.work.prompt_tokens
            self.sizes[number] = len(tokens), sum(tokens) + len(tokens) * self.work.prompt_tokens, longest
            self.scored[number] = 0
            own = self.work.written(number)
            self.queue.extend((t, number) for t in own)
            self.opened, self.last_written[number] = number, self.now
            self.arrive(number, tokens[: len(tokens) - len(own)])
        self.write()
        self.score()
        self.train()

    def arrive(self, step: int, tokens: Sequence[float]) -> None:
        """Responses are complete: they are scored, where there are teachers."""
        for each in tokens:
            self.order += 1
            if self.split.teachers:
                heapq.heappush(self.to_score, (step, self.order, each))
            else:
                self.scored[step] += 1

    def write(self) -> None:
        """Dispatch prompts: to each generator its fair share of all, but at most as many as it has slots."""
        if self.holding or not self.engines:
            return
        fair = -(-(len(self.queue) + self.in_flight) // len(self.engines))
        most = min(self.rates.generator.slots, fair)
        for i, engine in enumerate(self.engines):
            if not self.queue:
                return
            room = min(most - len(engine.writing), len(self.queue))
            if room > 0:
                engine.advance(self.now)
                for _ in range(room):
                    tokens, step = self.queue.popleft()
                    self.order += 1
                    heapq.heappush(engine.writing, (engine.clock + tokens, self.order, step, tokens))
                self.in_flight += room
                self.expect(i)

    def expect(self, i: int) -> None:
        """Schedule the end of the engine's next response, after its responses have changed."""
        engine = self.engines[i]
        engine.plan += 1
        if engine.writing and not engine.held:
            self.at(engine.next_end(), self.written, i, engine.plan)

    def written(self, i: int, plan: int) -> None:
        engine = self.engines[i]
        if plan != engine.plan:
            return
        engine.advance(self.now)
        engine.clock = max(engine.clock, engine.writing[0][0])
        before = engine.clock
        while engine.writing and engine.writing[0][0] <= before + 1e-9:
            _, _, step, tokens = heapq.heappop(engine.writing)
            self.in_flight -= 1
            self.arrive(step, [tokens])
            self.last_written[step] = self.now
        self.expect(i)
        self.write()
        self.score()
        if not self.split.teachers:
            self.train()
        if self.draining and not self.in_flight:
            self.sync()

    def score(self) -> None:
        """Give each free teacher a batch of waiting responses, those of the oldest step first."""
        rate = self.rates.teacher
        while self.free and self.to_score:
            batch: list[int] = []
            total = 0.0
            while self.to_score:
                tokens = self.to_score[0][2] + self.work.teacher_prompt_tokens
                if batch and total + tokens > rate.max_batch_tokens:
                    break
                batch.append(heapq.heappop(self.to_score)[0])
                total += tokens
            seconds = rate.seconds(total)
            self.teacher_busy += seconds
            self.at(self.now + seconds, self.batch_scored, heapq.heappop(self.free), *batch)

    def batch_scored(self, teacher: int, *steps: int) -> None:
        heapq.heappush(self.free, teacher)
        for step in steps:
            self.scored[step] += 1
        self.score()
        self.train()

    def train(self) -> None:
        """Train as soon as a step is complete and the previous one is done."""
        step = self.step
        if self.training or step > self.opened or self.scored[step] < self.sizes[step][0]:
            return
        self.training, self.begun[step] = True, self.now
        _, tokens, longest = self.sizes[step]
        seconds = self.rates.trainer.seconds(tokens, longest, self.split.ranks)
        self.trainer_busy += seconds
        self.at(self.now + self.rates.weigh_seconds + seconds + self.rates.turn_seconds, self.publish)

    def publish(self) -> None:
        """Stop dispatching until the generators have the new weights; with ``drain``, first wait for responses in flight."""
        self.holding = True
        if self.work.in_flight == "drain" and self.in_flight:
            self.draining = True
        else:
            self.sync()

    def sync(self) -> None:
        self.draining = False
        for i, engine in enumerate(self.engines):
            engine.advance(self.now)
            engine.held = True
            self.expect(i)
        self.trainer_busy += self.rates.sync_seconds
        self.at(self.now + self.rates.sync_seconds, self.synced)

    def synced(self) -> None:
        for i, engine in enumerate(self.engines):
            engine.advance(self.now)
            engine.held = False
            self.expect(i)
        self.holding = False
        self.ends.append(self.now)
        self.mark(self.step)
        self.learned(self.step)
        self.at(self.now + self.rates.between_seconds, self.next_step)

    def next_step(self) -> None:
        self.step, self.training = self.step + 1, False
        self.train()

    def mark(self, step: int) -> None:
        """Record the work done by the end of a step; batches that teachers have begun count in full."""
        busy = sum(e.busy for e in self.engines)
        slots = sum(e.slot_seconds for e in self.engines)
        self.marks[step] = busy, slots, self.teacher_busy, self.trainer_busy
