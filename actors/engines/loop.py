"""A vLLM engine owned by one thread; everything else reaches it through a command queue.

With one owner, requests, weight updates and steps never interleave, and an actor's event loop stays free to answer while the
engine works.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.errors import EngineFailed

if TYPE_CHECKING:
    from vllm import LLMEngine, PoolingParams, RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest


def reset_cache(engine: LLMEngine, *, running: bool = False) -> None:
    """Drop every cached prefix. Raises RuntimeError if vLLM kept them, as it does while requests are running.

    Args:
        running: also drop the prefixes of running requests, which recompute them before their next token.
    """
    if not engine.reset_prefix_cache(reset_running_requests=running):
        raise RuntimeError("vLLM kept its prefix cache: requests were still running")


@dataclass(frozen=True)
class Request:
    prompt_ids: list[int]
    params: SamplingParams | PoolingParams
    lora: LoRARequest | None = None


class EngineLoop:
    """Runs an engine on its own thread.

    Every method may be called from any thread and returns a future. When a step fails, all pending and later futures fail with
    EngineFailed. A request that the engine refuses fails alone, with its own error.

    Weights change between ``hold`` and ``release``. In between, a part of them is new, and no step may run. If an update fails,
    ``mark_weights_invalid`` ends the hold.
    """

    def __init__(self, build: Callable[[], LLMEngine]) -> None:
        self.busy_seconds = 0.0
        self._inbox: queue.SimpleQueue[tuple[Callable[[], None], Sequence[Future[Any]]]] = queue.SimpleQueue()
        self._taken: Sequence[Future[Any]] = ()  # the futures of the command that is running
        self._under_way: dict[str, Future[RequestOutput]] = {}
        self._ids = itertools.count()
        self._error: EngineFailed | None = None
        # Used by the engine's thread only, so that they change between two steps:
        self._held = False
        self._asleep = False
        self._mixed: EngineFailed | None = None  # set while the weights are partly old and partly new
        self._built: Future[None] = Future()
        threading.Thread(target=self._run, args=(build,), name="engine", daemon=True).start()
        self._built.result()

    def submit(self, requests: Sequence[Request]) -> list[Future[RequestOutput]]:
        """Admit requests together, in order, before the engine's next step.

        They fail with RuntimeError while the engine sleeps, and with EngineFailed while its weights are invalid.
        """
        futures: list[Future[RequestOutput]] = [Future() for _ in requests]

        def admit() -> None:
            refusal = _asleep() if self._asleep else self._mixed
            for request, future in zip(requests, futures, strict=True):
                if future.cancelled():
                    continue
                if refusal is None:
                    self._admit(request, future)
                else:
                    future.set_exception(refusal)

        self._post(admit, futures)
        return futures

    def call(self, function: Callable[[LLMEngine], Any], *, held: bool = False) -> Future[Any]:
        """Run ``function(engine)`` between two steps. ``held``: fail with RuntimeError unless the engine is held."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                if held and not self._held:
                    raise RuntimeError("no weight update is under way: call start_weight_update first")
                future.set_result(function(self._engine))
            except Exception as error:
                _raise_if_dead(error)
                future.set_exception(error)

        self._post(run, [future])
        return future

    def hold(self) -> Future[None]:
        """Run no step until ``release`` or ``mark_weights_invalid``, because the weights change. Requests are still admitted.

        Waits for batches that the device still computes. Has no effect on an engine that is already held, as when an update
        starts over. Fails with RuntimeError if the engine sleeps, and with the device's own error if a batch failed; then
        nothing is held.
        """

        def begin(engine: LLMEngine) -> None:
            if self._asleep:
                raise _asleep()
            try:
                # An engine in its own process runs steps by itself. Sleep level 0 pauses it and frees nothing.
                engine.sleep(level=0, mode="keep")
            except Exception:
                # It failed but is paused all the same. A paused engine's steps do nothing, so its requests would never finish.
                if not self._held:
                    engine.wake_up(tags=["scheduling"])
                raise
            self._held = True

        return self.call(begin)

    def release(self) -> Future[None]:
        """The weights are complete: resume. Fails with RuntimeError if the engine is not held."""

        def end(engine: LLMEngine) -> None:
            engine.wake_up(tags=["scheduling"])
            self._held, self._mixed = False, None

        return self.call(end, held=True)

    def mark_weights_invalid(self, error: BaseException) -> Future[None]:
        """The weight update failed. Requests in flight fail, and so do later ones until an update completes.

        No effect if the engine is not held.
        """

        def end(engine: LLMEngine) -> None:
            if not self._held:
                return
            self._mixed = _failure("a weight update failed half way", error)
            engine.abort_request(list(self._under_way))
            engine.wake_up(tags=["scheduling"])
            self._held = False
            under_way, self._under_way = self._under_way, {}
            _fail_all(under_way.values(), self._mixed)

        return self.call(end)

    def cancel_all(self) -> Future[None]:
        """Fail every request in flight with RuntimeError, because nobody waits for them any more."""

        def end(engine: LLMEngine) -> None:
            engine.abort_request(list(self._under_way))
            under_way, self._under_way = self._under_way, {}
            _fail_all(under_way.values(), RuntimeError("the request was cancelled"))

        return self.call(end)

    def sleep(self, *, free_memory: bool) -> Future[None]:
        """Refuse requests and weights until ``wake_up``. Fails with RuntimeError while either is in progress.

        Args:
            free_memory: use vLLM's sleep mode at level 1, which moves the weights to host memory and drops the KV cache.
        """

        def fall_asleep(engine: LLMEngine) -> None:
            if self._under_way or self._held:
                what = f"{len(self._under_way)} requests are" if self._under_way else "a weight update is"
                raise RuntimeError(f"an engine can sleep only while idle, but {what} under way")
            if not self._asleep:
                reset_cache(engine)
                self._asleep = True  # even if the next line fails
                if free_memory:
                    engine.sleep(level=1)

        return self.call(fall_asleep)

    def wake_up(self, *, free_memory: bool) -> Future[None]:
        """Serve again, with the weights from before ``sleep``. ``free_memory`` as in ``sleep``."""

        def rise(engine: LLMEngine) -> None:
            if self._asleep and free_memory:
                engine.wake_up()
            self._asleep = False

        return self.call(rise)

    def _admit(self, request: Request, future: Future[RequestOutput]) -> None:
        name = str(next(self._ids))
        self._under_way[name] = future
        try:
            prompt = {"prompt_token_ids": request.prompt_ids}
            self._engine.add_request(name, prompt, request.params, lora_request=request.lora)
        except Exception as error:
            _raise_if_dead(error)
            del self._under_way[name]
            future.set_exception(error)

    def _post(self, command: Callable[[], None], futures: Sequence[Future[Any]]) -> None:
        if self._error is not None:
            _fail_all(futures, self._error)
        else:
            self._inbox.put((command, futures))
            if self._error is not None:  # the engine failed in between
                self._fail(self._error)

    def _run(self, build: Callable[[], LLMEngine]) -> None:
        try:
            self._engine = build()
        except BaseException as error:
            self._built.set_exception(error)
            return
        self._built.set_result(None)
        try:
            while True:
                self._take_commands(wait=self._held or not self._under_way)
                if self._under_way and not self._held:
                    self._step()
        except BaseException as error:
            self._fail(_failure("the engine failed", error))

    def _take_commands(self, *, wait: bool) -> None:
        while wait or not self._inbox.empty():
            command, self._taken = self._inbox.get()
            # A caller that gave up may have cancelled. After this call it cannot, so results may be set.
            if [future for future in self._taken if future.set_running_or_notify_cancel()]:
                command()
            self._taken = ()
            wait = False

    def _step(self) -> None:
        started = time.perf_counter()
        outputs = self._engine.step()
        self.busy_seconds += time.perf_counter() - started
        for output in outputs:
            if output.finished and (future := self._under_way.pop(output.request_id, None)) is not None:
                future.set_result(output)

    def _fail(self, error: EngineFailed) -> None:
        """Pass the error to all pending futures and to all later ones, so that no caller waits forever."""
        self._error = error
        waiting, self._under_way = [*self._taken, *self._under_way.values()], {}
        while not self._inbox.empty():
            waiting += [f for f in self._inbox.get()[1] if f.set_running_or_notify_cancel()]
        _fail_all(waiting, error)


def _fail_all(futures: Iterable[Future[Any]], error: Exception) -> None:
    for future in futures:
        with contextlib.suppress(InvalidStateError):  # it is already done or cancelled
            future.set_exception(error)


def _failure(what: str, error: BaseException) -> EngineFailed:
    return EngineFailed(f"{what}: {type(error).__name__}: {error}")


def _asleep() -> RuntimeError:
    return RuntimeError("the engine sleeps: wake it up before sending requests or weights")


def _raise_if_dead(error: Exception) -> None:
    """Raise the error if the engine's process is dead: that is not the fault of this one request."""
    if type(error).__name__ == "EngineDeadError":  # by name: this module is imported without vLLM too
        raise error
