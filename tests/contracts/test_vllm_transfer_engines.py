"""What vLLM asks of a transfer engine of one's own, and what it does with one: the ``host`` backend and joining anew."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from tests.contracts.reliance import expressions, parameters, relied_on

JOIN = "actors.engines.vllm_extension.RenioWorker.renio_join"
HOST = "actors.engines.host_backend.HostWeightTransferEngine"


def engine(vllm_config: Any, backend: str) -> Any:
    from vllm.config.weight_transfer import WeightTransferConfig
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    import actors.engines.vllm_extension  # noqa: F401  registers the host backend

    model = torch.nn.Linear(1, 1)
    return WeightTransferEngineFactory.create_engine(
        WeightTransferConfig(backend=backend), vllm_config, torch.device("cpu"), model
    )


@relied_on("vllm", JOIN, HOST, breaks="an engine could not be made anew for a group, or ours not be made at all")
@pytest.mark.parametrize("backend", ["nccl", "ipc", "host"])
def test_an_engine_of_each_backend_is_made_from_four_things(vllm_config: Any, backend: str) -> None:
    found = engine(vllm_config, backend)
    assert {"device", "model", "model_config", "vllm_config", "config"} <= found.__dict__.keys()
    assert found.device == torch.device("cpu")
    found.shutdown()  # of one that has joined nobody


@relied_on("vllm", HOST, breaks="a chunk from the object store would not reach our backend")
def test_an_update_s_fields_become_the_backend_s_own_and_the_device_is_waited_for(
    vllm_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waited.append("for the device"))
    found = engine(vllm_config, "host")
    found.receive_weights = MagicMock()
    found.update_weights({"names": ["weight"], "dtypes": ["float32"], "shapes": [[1]], "arrays": []})
    (given,) = found.receive_weights.call_args.args
    assert given.names == ["weight"]
    assert waited == ["for the device"]
    with pytest.raises(ValueError, match="Invalid update_info"):
        found.update_weights({"no": "such field"})


@relied_on("vllm", HOST, breaks="every update on a CPU would raise, because torch has no accelerator to wait for there")
def test_the_runner_that_a_cpu_uses_takes_the_wait_for_a_device_away(vllm_config: Any) -> None:
    """Read: vLLM's second runner does not do this; it is not used on a CPU, where Triton is missing."""
    from vllm.v1.worker import cpu_model_runner

    assert vllm_config.use_v2_model_runner is False
    assert "_set_torch_accelerator_to_noop()" in expressions(cpu_model_runner.CPUModelRunner.__init__)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("synchronize", "empty_cache"):  # restored afterwards
            patch.setattr(torch.accelerator, name, getattr(torch.accelerator, name))
        cpu_model_runner._set_torch_accelerator_to_noop()
        torch.accelerator.synchronize()


@relied_on("vllm", HOST, breaks="our backend lacks a method that vLLM calls")
def test_our_backend_has_every_method_that_must_be_written() -> None:
    from vllm.distributed.weight_transfer.base import WeightTransferEngine

    from actors.engines.host_backend import HostWeightTransferEngine

    asked = {"init_transfer_engine", "start_weight_update", "receive_weights", "finish_weight_update", "shutdown"}
    assert WeightTransferEngine.__abstractmethods__ == asked
    assert HostWeightTransferEngine.__abstractmethods__ == frozenset()


@relied_on(
    "vllm",
    JOIN,
    "actors.engines.vllm_extension._join",
    breaks="the worker would not take part in the transfer as the trainer says",
)
def test_a_worker_takes_the_transfer_s_settings_from_the_trainer(vllm_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed.weight_transfer import nccl_engine

    monkeypatch.setattr(nccl_engine, "worker_init_process_group", lambda info, parallel: "a group")
    found = engine(vllm_config, "nccl")
    settings = {"packed": True, "packed_buffer_size_bytes": 2**28, "packed_num_buffers": 1}
    where = {"master_address": "10.0.0.1", "master_port": 29500, "rank_offset": 1, "world_size": 2}
    found.init_transfer_engine(found.parse_init_info(where | settings))
    assert {name: getattr(found, name) for name in settings} == settings
    assert found.model_update_group == "a group"


@relied_on(
    "vllm", JOIN, "actors.engines.build.build_engine", breaks="another backend would be made than the one that is asked for"
)
def test_the_backend_is_named_in_the_configuration() -> None:
    from vllm.config.weight_transfer import WeightTransferConfig
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory, WeightTransferTrainerFactory

    assert WeightTransferConfig(backend="host").backend == "host"
    assert {"nccl", "ipc"} <= WeightTransferEngineFactory._registry.keys() & WeightTransferTrainerFactory._registry.keys()
    assert list(parameters(WeightTransferEngineFactory.create_engine)) == ["config", "vllm_config", "device", "model"]
    assert list(parameters(WeightTransferTrainerFactory.trainer_init)) == ["init_info", "client", "source"]


@relied_on(
    "vllm", "actors.engines.vllm_extension._join", breaks="a rendezvous on another thread would be made for the first GPU"
)
def test_a_worker_s_group_is_made_on_the_thread_s_current_device() -> None:
    """Read."""
    from vllm.distributed.weight_transfer.nccl_common import worker_init_process_group

    assert "torch.accelerator.current_device_index()" in expressions(worker_init_process_group)
    assert callable(torch.accelerator.set_device_index)


@relied_on(
    "vllm", "actors.weight_sync.native_sender.NativeSender.send", breaks="a sync would wait for the wrong stream, or not at all"
)
def test_transfers_read_on_streams_of_their_own() -> None:
    """Read: hence the wait for the optimizer's stream before each round."""
    from vllm.distributed.weight_transfer import packed_tensor

    assert "torch.cuda.Stream(device=device_idx)" in expressions(packed_tensor._get_streams)
    for half in (packed_tensor.packed_nccl_broadcast_producer, packed_tensor.packed_nccl_broadcast_consumer):
        assert "_get_streams(torch.accelerator.current_device_index(), num_buffers)" in expressions(half)
