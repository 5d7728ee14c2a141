"""A vLLM engine that a thread of its own owns; everything else reaches it through an inbox.

One owner means that requests, weight updates and steps never interleave, and that an actor's event loop stays free to
answer while the engine works.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from renio_pipeline.schema import Lora

if TYPE_CHECKING:
    from vllm import LLMEngine, PoolingParams, RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has buffers for; a lower rank fits into the next


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What a replica's vLLM engine is built from."""

    model: str
    dtype: str
    tensor_parallel: int = 1
    separate_process: bool = False
    context: int  # tokens of prompt and response together
    temperature: float  # the distillation temperature
    vocab_size: int  # V: rows that both student and teacher have
    seed: int = 0
    max_logprobs: int = 0
    sync_backend: str | None = None  # None: the weights never change
    on_gpu: bool = False
    hidden_states: bool = False  # give hidden states, not text
    lora: Lora | None = None  # serve the model with an adapter, which comes by ``renio_load_adapter``
    options: dict[str, Any] = field(default_factory=dict)


def build_engine(spec: EngineSpec) -> LLMEngine:
    """Load the model. Raises whatever vLLM raises; its text is passed on."""
    from vllm import EngineArgs, LLMEngine
    from vllm.config.weight_transfer import WeightTransferConfig

    options = dict(spec.options)
    if spec.dtype == "bfloat16":  # logits near 20 are 0.125 apart in bf16: the head and the softmax need fp32
        head_dtype = "model" if spec.hidden_states else "float32"  # of states: they must stay what the model makes
        options["hf_overrides"] = {"head_dtype": head_dtype, **options.get("hf_overrides", {})}
    if not spec.on_gpu:
        options = {"enforce_eager": True} | options
    if spec.hidden_states:
        options |= {"runner": "pooling", "convert": "embed"}
    if spec.lora is not None:
        rank = min(r for r in LORA_RANKS if r >= spec.lora.r)
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank, "lora_target_modules": list(spec.lora.targets)}
    args = EngineArgs(
        model=spec.model,
        dtype=spec.dtype,
        seed=spec.seed,
        tensor_parallel_size=spec.tensor_parallel,
        # Inside a placement group vLLM would choose Ray and compete for the resources that this actor holds already.
        distributed_executor_backend="mp" if spec.tensor_parallel > 1 else "uni",
        worker_extension_cls="actors.vllm_extension.RenioWorker",
        weight_transfer_config=WeightTransferConfig(backend=spec.sync_backend) if spec.sync_backend else None,
        max_logprobs=spec.max_logprobs + 1,
        disable_log_stats=True,
        **({"max_model_len": spec.context} | options),
    )
    import actors.vllm_extension  # noqa: F401  registers the host backend where the engine shares this process

    engine = LLMEngine.from_engine_args(args, enable_multiprocessing=spec.separate_process or spec.tensor_parallel > 1)
    engine.collective_rpc("renio_configure", args=(spec.temperature, spec.vocab_size))
    return engine


@dataclass(frozen=True)
class Request:
    prompt_ids: list[int]
    params: SamplingParams | PoolingParams
    lora: LoRARequest | None = None


class EngineLoop:
    """Runs an engine on its thread.

    Every method may be called from any thread and returns a future. When a step fails, every future under way and every
    later one carries its error.
    """

    def __init__(self, build: Callable[[], LLMEngine]) -> None:
        self.busy_seconds = 0.0
        self._inbox: queue.SimpleQueue[tuple[Callable[[], None], Sequence[Future[Any]]]] = queue.SimpleQueue()
        self._under_way: dict[str, Future[RequestOutput]] = {}
        self._ids = itertools.count()
        self._error: BaseException | None = None
        self._built: Future[None] = Future()
        threading.Thread(target=self._run, args=(build,), name="engine", daemon=True).start()
        self._built.result()

    def submit(self, requests: Sequence[Request]) -> list[Future[RequestOutput]]:
        """Admit requests together, in order, before the engine's next step."""
        futures: list[Future[RequestOutput]] = [Future() for _ in requests]

        def admit() -> None:
            for request, future in zip(requests, futures, strict=True):
                if future.cancelled():
                    continue
                name = str(next(self._ids))
                self._under_way[name] = future
                try:
                    prompt = {"prompt_token_ids": request.prompt_ids}
                    self._engine.add_request(name, prompt, request.params, lora_request=request.lora)
                except Exception as error:
                    del self._under_way[name]
                    future.set_exception(error)

        self._post(admit, futures)
        return futures

    def call(self, function: Callable[[LLMEngine], Any]) -> Future[Any]:
        """Run ``function(engine)`` between two steps."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(self._engine))
            except Exception as error:
                future.set_exception(error)

        self._post(run, [future])
        return future

    def _post(self, command: Callable[[], None], futures: Sequence[Future[Any]]) -> None:
        if self._error is not None:
            for future in futures:
                future.set_exception(self._error)
        else:
            self._inbox.put((command, futures))
            if self._error is not None:  # it came in between
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
                self._take_commands(wait=not self._under_way)
                if self._under_way:
                    self._step()
        except BaseException as error:
            self._fail(error)

    def _take_commands(self, *, wait: bool) -> None:
        while wait or not self._inbox.empty():
            command, futures = self._inbox.get()
            # A caller that gave up may have cancelled: from here on it cannot any more, and results may be set.
            if [future for future in futures if future.set_running_or_notify_cancel()]:
                command()
            wait = False

    def _step(self) -> None:
        started = time.perf_counter()
        outputs = self._engine.step()
        self.busy_seconds += time.perf_counter() - started
        for output in outputs:
            if output.finished and (future := self._under_way.pop(output.request_id, None)) is not None:
                future.set_result(output)

    def _fail(self, error: BaseException) -> None:
        """Nothing may wait for ever: whoever waits, and whoever comes, gets the error."""
        self._error = error
        waiting, self._under_way = list(self._under_way.values()), {}
        while not self._inbox.empty():
            waiting += [f for f in self._inbox.get()[1] if f.set_running_or_notify_cancel()]
        for future in waiting:
            future.set_exception(error)
