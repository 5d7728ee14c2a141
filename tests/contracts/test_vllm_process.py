"""What a vLLM process is given: its environment, prompts, calls from another process, and what a CPU cannot do."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
import torch

from tests.contracts.reliance import expressions, relied_on


@relied_on(
    "vllm",
    "actors.cluster.placement.actor_options",
    "actors.cluster.placement.COMMON_ENV",
    breaks="a variable of ours would have no effect",
)
def test_the_environment_variables_that_we_set_are_vllm_s(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs
    from vllm.utils import ompmultiprocessing

    from actors.cluster.placement import actor_options
    from tests.unit.conftest import make_config

    ours = actor_options(make_config(), "generator", uses_vllm=True)["runtime_env"]["env_vars"]
    assert {name for name in ours if name.startswith("VLLM_")} - envs.environment_variables.keys() == set()
    monkeypatch.setenv("VLLM_LOG_STATS_INTERVAL", ours["VLLM_LOG_STATS_INTERVAL"])
    assert envs.VLLM_LOG_STATS_INTERVAL == 1e9
    assert "self.skip_setup" in expressions(ompmultiprocessing)
    assert ours["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@relied_on(
    "vllm",
    "renio_pipeline.demo.make_models._config",
    breaks="the demo's models could not be served on a CPU, or could be smaller",
)
def test_the_smallest_attention_heads_of_a_cpu_have_this_size() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert min(CPUAttentionBackend.get_supported_head_sizes()) == 32


@relied_on("vllm", "actors.engines.build.build_engine", breaks="chunked prefill need not be off on a CPU any more")
def test_a_seeded_request_s_random_numbers_are_rewound_which_a_cpu_cannot() -> None:
    """Read, but for torch: vLLM does so where a prompt is cut in chunks."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert any(text.endswith(".set_offset(gen.get_offset() - 4)") for text in expressions(GPUModelRunner))
    with pytest.raises(RuntimeError, match="offset"):
        torch.Generator().get_offset()


@relied_on("vllm", "actors.engines.loop.EngineLoop._admit", breaks="prompts of token ids would be refused, or read as text")
def test_a_prompt_is_a_dictionary_of_token_ids() -> None:
    from vllm.inputs import TokensPrompt

    assert TokensPrompt.__required_keys__ == {"prompt_token_ids"}


@relied_on(
    "vllm",
    "actors.engines.vllm_replica._rpc",
    "actors.weight_sync.receiver.HostReceiver.fetch",
    breaks="a call of a worker's method would not reach an engine in a process of its own",
)
def test_what_we_send_to_the_workers_passes_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    monkeypatch.delenv("VLLM_ALLOW_INSECURE_SERIALIZATION", raising=False)
    chunk: dict[str, Any] = {
        "names": ["model.norm.weight"],
        "dtypes": ["bfloat16"],
        "shapes": [[8]],
        "shared_memory": "psm_1",
        "spans": [(0, 16)],
    }
    call = ("renio_try", None, ("update_weights", chunk), None)
    method, timeout, args, kwargs = MsgpackDecoder().decode(MsgpackEncoder().encode(call))
    assert (method, timeout, kwargs) == ("renio_try", None, None)
    assert args[0] == "update_weights"
    assert [tuple(span) for span in args[1].pop("spans")] == chunk.pop("spans")  # a list by now
    assert args[1] == chunk


@relied_on(
    "vllm",
    "actors.engines.own_process.QUEUE_BYTES",
    "actors.engines.own_process.check_shared_memory",
    breaks="an engine whose node has too little shared memory would be started, or one with enough be refused",
)
def test_the_queues_of_an_engine_and_its_workers_take_this_much_shared_memory() -> None:
    from vllm import envs
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue, ShmRingBuffer
    from vllm.v1.executor import multiproc_executor

    from actors.engines.own_process import QUEUE_BYTES

    given = inspect.signature(MessageQueue.__init__).parameters
    pieces, piece = given["max_chunks"].default, given["max_chunk_bytes"].default
    answers = (piece + 2) * pieces  # a worker's, which one process reads
    assert "self.worker_response_mq = MessageQueue(1, 1)" in inspect.getsource(multiproc_executor)
    requests = (envs.VLLM_MQ_MAX_CHUNK_BYTES_MB * 2**20 + 64) * pieces
    assert max(answers, requests) <= QUEUE_BYTES < 1.1 * max(answers, requests)
    assert "check_shm_free_space(self.total_bytes_of_buffer)" in inspect.getsource(ShmRingBuffer)


@relied_on("vllm", "actors.engines.own_process.root_cause", breaks="the cause would not be found in an engine's log")
def test_the_log_of_an_engine_has_its_process_and_the_level_before_each_line() -> None:
    from vllm import logger
    from vllm.logging_utils import NewLineFormatter

    from actors.engines.own_process import root_cause

    record = logging.LogRecord("vllm", logging.ERROR, "/a/core.py", 1510, "it failed\nValueError: of two\nlines", None, None)
    record.vllm_process_name = "EngineCore_DP0"
    written = NewLineFormatter(logger._FORMAT, logger._DATE_FORMAT).format(record).splitlines()
    assert root_cause(written) == ("ValueError: of two", ["it failed", "ValueError: of two", "lines"])
