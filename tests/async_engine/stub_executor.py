"""What vLLM's engine drives in the place of GPU workers: it keeps the books and leaves the rest to a ``Device``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.executor.abstract import Executor
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, LogprobsLists, ModelRunnerOutput
from vllm.v1.serial_utils import run_method

from tests.async_engine.device import Row
from tests.async_engine.stub_worker import BLOCK, StubWorker
from tests.async_engine.tokens import Token, encode


@dataclass
class Running:
    """A sequence as the worker knows it."""

    prompt: int  # tokens
    known: int  # tokens of prompt and response that there were when it was scheduled first, or resumed
    length: int  # tokens of the response at which the model ends it; 0: it does not
    blocks: list[int]

    @classmethod
    def of(cls, new: NewRequestData) -> Running:
        assert new.prompt_token_ids is not None
        assert new.prefill_token_ids is not None, "the scheduler does not serve the V2 model runner, as on GPUs"
        return cls(len(new.prompt_token_ids), len(new.prefill_token_ids), new.prompt_token_ids[0], [*new.block_ids[0]])

    def row(self, start: int, tokens: int) -> Row:
        end = start + tokens
        return Row([self.blocks[at // BLOCK] * BLOCK + at % BLOCK for at in range(end)], start, end)

    def sample(self, row: Row, version: int) -> Token | None:
        """None: the prompt's rest comes in a later batch."""
        if row.end < self.known:
            return None
        place = row.end - self.prompt
        return encode(version, place, last=place + 1 == self.length)


class StubExecutor(Executor):
    """Launches a batch on the device and hands out a future for its tokens, without waiting."""

    def _init_executor(self) -> None:
        self.worker = StubWorker()
        self.device = self.worker.device
        self._running: dict[str, Running] = {}
        self.preempted = 0  # sequences that lost their KV blocks, to others or because the cache was reset
        self._sampled: Future[ModelRunnerOutput] | None = None  # of the batch that was launched last

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        return True

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        non_block: bool = False,
    ) -> Any:
        assert not non_block, "nothing but batches may be left to run"
        return [run_method(self.worker, method, args, kwargs or {})]

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        assert non_block, "the engine waits for its batches: async scheduling is off"
        executed: Future[Any] = Future()
        self._update(scheduler_output)
        if not scheduler_output.total_num_scheduled_tokens:
            executed.set_result(EMPTY_MODEL_RUNNER_OUTPUT)
            return executed
        executed.set_result(None)  # the tokens come from sample_tokens
        self._sampled = self._launch(self._starts(scheduler_output), scheduler_output.num_scheduled_tokens)
        return executed

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        assert non_block, "the engine waits for its batches: async scheduling is off"
        sampled, self._sampled = self._sampled, None
        assert sampled is not None, "no batch was launched"
        return sampled

    def check_health(self) -> None:
        """It is always well."""

    def shutdown(self) -> None:
        self.device.close()

    def _update(self, output: SchedulerOutput) -> None:
        preempted = output.preempted_req_ids or set()
        self.preempted += len(preempted)
        for name in output.finished_req_ids | preempted:
            self._running.pop(name, None)
        for new in output.scheduled_new_reqs:
            self._running[new.req_id] = Running.of(new)
        cached = output.scheduled_cached_reqs
        assert not cached.resumed_req_ids, "the V2 model runner gets resumed requests as new ones"
        for name, blocks in zip(cached.req_ids, cached.new_block_ids, strict=True):
            if blocks is not None:
                self._running[name].blocks += blocks[0]

    def _starts(self, output: SchedulerOutput) -> dict[str, int]:
        cached = output.scheduled_cached_reqs
        starts = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        return starts | dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))

    def _launch(self, starts: dict[str, int], tokens: dict[str, int]) -> Future[ModelRunnerOutput]:
        sequences = [self._running[name] for name in tokens]
        rows = [self._running[name].row(starts[name], count) for name, count in tokens.items()]
        sampled: Future[ModelRunnerOutput] = Future()

        def finish(versions: Future[list[int]]) -> None:
            if (error := versions.exception()) is not None:
                sampled.set_exception(error)
                return
            found = [each.sample(row, v) for each, row, v in zip(sequences, rows, versions.result(), strict=True)]
            sampled.set_result(_output(list(tokens), found))

        self.device.launch(rows).add_done_callback(finish)
        return sampled


def _output(names: list[str], found: Sequence[Token | None]) -> ModelRunnerOutput:
    ids = np.array([[token.id if token else 0] for token in found], np.int32)
    logprobs = np.array([[token.logprob if token else 0.0] for token in found], np.float32)
    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: index for index, name in enumerate(names)},
        sampled_token_ids=[[token.id] if token else [] for token in found],
        logprobs=LogprobsLists(ids, logprobs, np.ones(len(names), np.int32)),
    )
