"""vLLM's weight transfer by ``nccl`` and ``ipc``: the trainer's engines, the workers', the verbs between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.contracts.reliance import REQUIRED, expressions, parameters, relied_on

SENDER = "actors.weight_sync.native_sender.NativeSender"


class Client:
    """vLLM's client, which remembers the verbs in their order."""

    def __init__(self) -> None:
        self.verbs: list[str] = []
        self.init_info: dict[str, Any] = {}

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.init_info = init_info

    def start_weight_update(self) -> None:
        self.verbs.append("start")

    def update_weights(self, update_info: Any) -> None:
        self.verbs.append("update")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.verbs.append(f"finish {weight_version}")


class OnePass:
    """A source whose passes are counted, as ``NativeSender`` wraps one: each pass is the same iterator until the next round."""

    def __init__(self) -> None:
        from actors.trainer.weight_source import DeepSpeedSource

        self._source = DeepSpeedSource(torch.nn.Linear(2, 3), dtype=torch.bfloat16)
        self.metadata, self.passes = self._source.metadata, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self._source)


def trainer(is_sender: bool, source: OnePass, client: Client) -> Any:
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    engine = NCCLTrainerWeightTransferEngine(client=client, source=source, is_sender=is_sender)  # type: ignore[arg-type]
    engine.model_update_group = SimpleNamespace(destroy=lambda: client.verbs.append("destroy"))  # type: ignore[assignment]
    return engine


@relied_on(
    "vllm",
    "actors.weight_sync.factory.make_sender",
    breaks="a transfer takes other buffers on the GPU than are planned for, or their size cannot be set by these names",
)
def test_buffers_of_a_packed_transfer_and_how_they_are_set() -> None:
    from vllm.distributed.weight_transfer import packed_tensor
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    assert (packed_tensor.DEFAULT_PACKED_BUFFER_SIZE_BYTES, packed_tensor.DEFAULT_PACKED_NUM_BUFFERS) == (2**30, 2)
    packed = {"packed_buffer_size_bytes": 2**30, "packed_num_buffers": 2}
    assert parameters(NCCLTrainerInitInfo) == {
        "master_address": REQUIRED,
        "master_port": REQUIRED,
        "world_size": REQUIRED,
        "packed": True,
        **packed,
        "rank": REQUIRED,
    }
    # ipc has one buffer, and uses none unless it is told to.
    assert parameters(IPCTrainerInitInfo) == {"packed": False, "packed_buffer_size_bytes": 2**30, "rank": REQUIRED}
    assert {field.name for field in dataclasses.fields(NCCLWeightTransferInitInfo)} >= {"rank_offset", "packed", *packed}
    assert (NCCLTrainerInitInfo.backend, IPCTrainerInitInfo.backend) == ("nccl", "ipc")


@relied_on(
    "vllm", "actors.weight_sync.factory.make_sender", breaks="a buffer would no longer grow by its last tensor, or ipc's would"
)
def test_a_packed_buffer_overshoots_its_size_by_its_last_tensor() -> None:
    from vllm.distributed.weight_transfer.packed_tensor import pack_tensors, packed_ipc_producer

    pairs = iter([(str(i), torch.zeros(10, dtype=torch.uint8)) for i in range(5)])
    chunk = pack_tensors(pairs, lambda pair: pair[1], 25)
    assert chunk is not None
    assert len(chunk.packed_tensor) == 30
    # Read: ipc's buffer has a fixed size, and a larger tensor is a ValueError.
    assert any(text.startswith("ValueError(") for text in expressions(packed_ipc_producer))


@relied_on(
    "vllm",
    f"{SENDER}.send",
    "actors.weight_sync.native_sender._Round",
    "actors.trainer.weight_source.DeepSpeedSource",
    breaks="the ranks would get out of step: one would gather parameters that the others do not",
)
@pytest.mark.parametrize("is_sender", [True, False])
def test_a_round_is_one_pass_over_the_source_on_every_rank(monkeypatch: pytest.MonkeyPatch, is_sender: bool) -> None:
    from vllm.distributed.weight_transfer import nccl_engine

    sent: list[str] = []
    monkeypatch.setattr(
        nccl_engine,
        "packed_nccl_broadcast_producer",
        lambda *, iterator, group, src, **_: sent.extend(name for name, _ in iterator),
    )
    source, client = OnePass(), Client()
    engine = trainer(is_sender, source, client)
    engine.send_weights()
    assert source.passes == 1
    assert sent == (["weight", "bias"] if is_sender else [])
    assert client.verbs == (["start", "update", "finish None"] if is_sender else [])  # the version is ours to add
    engine.shutdown()
    assert client.verbs[-1:] == ["destroy"]


@relied_on(
    "vllm",
    "actors.weight_sync.vllm_client.EngineGroupClient",
    breaks="vLLM's trainer engines would not take our client, or call it otherwise",
)
def test_our_verbs_are_vllm_s_client() -> None:
    from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient

    from actors.weight_sync.vllm_client import EngineGroupClient

    assert issubclass(EngineGroupClient, VLLMWeightSyncClient)
    for verb in ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update"):
        assert len(parameters(getattr(EngineGroupClient, verb))) == len(parameters(getattr(VLLMWeightSyncClient, verb)))


@relied_on(
    "vllm",
    "actors.weight_sync.vllm_client.EngineGroupClient.init_weight_transfer_engine",
    f"{SENDER}.open",
    breaks="workers of several engines would have the same rank, and the rendezvous never end",
)
def test_a_worker_s_rank_is_its_own_after_the_offset_that_we_give(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed.weight_transfer import nccl_common, nccl_engine
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

    joined: list[tuple[Any, ...]] = []
    monkeypatch.setattr(nccl_common, "stateless_init_process_group", lambda *args, device=None: joined.append(args))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: None)
    client = Client()
    info = nccl_engine.NCCLTrainerInitInfo("10.0.0.1", 29500, 6, rank=0)
    WeightTransferTrainerFactory.trainer_init(info, client=client, source=OnePass())  # type: ignore[arg-type]
    assert client.init_info["rank_offset"] == 1  # for every engine: ours replaces it
    worker = nccl_common.NCCLWeightTransferInitInfo(**client.init_info | {"rank_offset": 3})
    parallel: Any = SimpleNamespace(data_parallel_index=0, world_size=2, rank=1)
    nccl_common.worker_init_process_group(worker, parallel)
    assert joined == [("10.0.0.1", 29500, 4, 6)]


@relied_on(
    "vllm",
    "tests.ray.gloo_communicator.install",
    f"{SENDER}.close",
    "actors.engines.vllm_extension.RenioWorker.renio_receive",
    breaks="tests would not reach the communicator any more, or a transfer under way could not be aborted",
)
def test_the_communicator_is_looked_up_when_a_group_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed import utils
    from vllm.distributed.device_communicators import pynccl
    from vllm.distributed.weight_transfer import nccl_common, packed_tensor

    real = pynccl.PyNcclCommunicator
    assert list(parameters(real.broadcast)) == ["tensor", "src", "stream"]
    assert parameters(real.destroy) == {}
    assert {"nccl.ncclCommAbort", "self.nccl.ncclCommAbort"} & expressions(real.destroy)
    made: list[Any] = []
    monkeypatch.setattr(pynccl, "PyNcclCommunicator", lambda group, device: made.append((group, device)))
    monkeypatch.setattr(utils.StatelessProcessGroup, "create", lambda **where: where)
    nccl_common.stateless_init_process_group("10.0.0.1", 29500, 1, 2, 0)
    assert made == [({"host": "10.0.0.1", "port": 29500, "rank": 1, "world_size": 2}, 0)]
    fields = {field.name for field in dataclasses.fields(utils.StatelessProcessGroup)}
    assert {"rank", "world_size", "store"} <= fields
    for half in (packed_tensor.packed_nccl_broadcast_producer, packed_tensor.packed_nccl_broadcast_consumer):
        assert "torch.cuda.stream(streams[buffer_idx])" in expressions(half)  # what ``install`` must stand in for


@relied_on(
    "vllm",
    "renio_pipeline.config.checks.placement.check_sync",
    breaks="ipc would now reach an engine in a process of its own, and need not be refused there",
)
def test_handles_of_ipc_cannot_go_to_an_engine_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    from torch.multiprocessing.reductions import rebuild_cuda_tensor
    from vllm.v1.serial_utils import MsgpackEncoder

    monkeypatch.delenv("VLLM_ALLOW_INSECURE_SERIALIZATION", raising=False)
    order = list(inspect.signature(rebuild_cuda_tensor).parameters)
    assert order[6] == "storage_device"  # which the receiver replaces by its own
    assert {"tensor_cls", "storage_cls", "dtype"} <= set(order)
    values = {"tensor_cls": torch.Tensor, "storage_cls": torch.UntypedStorage, "dtype": torch.bfloat16}
    handle = {"GPU-1": tuple(values.get(name, 0) for name in order)}
    with pytest.raises(TypeError, match="not serializable"):
        MsgpackEncoder().encode({"names": ["weight"], "ipc_handles": [handle]})
