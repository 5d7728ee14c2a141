"""What a vLLM process is given: its environment, prompts, calls from another process, and what a CPU cannot do."""

from __future__ import annotations

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
