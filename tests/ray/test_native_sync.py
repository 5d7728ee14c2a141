"""vLLM's own weight transfer (``nccl``, ``ipc``) between real trainer ranks and real receivers, with only the wire replaced.

Two DeepSpeed ranks send through vLLM's trainer engine to three engines of 1, 2 and 1 workers. Every worker runs vLLM's
receiver; its model only keeps what it is given. Where a receiver is lost, one that stays is a real generator.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import ray
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from actors.cluster.placement import actor_options
from actors.engines.generator import Generator
from actors.engines.specs import generator_spec
from actors.engines.vllm_extension import RenioWorker
from actors.errors import EngineFailed
from actors.trainer.deepspeed_engine import build
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec
from actors.trainer.rank import TrainerRank
from actors.trainer.weight_source import DeepSpeedSource
from actors.weight_sync import vllm_client
from actors.weight_sync.background import on_thread
from actors.weight_sync.client import SyncClient
from actors.weight_sync.factory import PACKED_BYTES, largest_tensor, make_sender
from actors.weight_sync.native_sender import NativeSender
from actors.weight_sync.receiver import TransferAborted, Waiting
from actors.weight_sync.sender import SyncReceipt, TransferFailed
from renio_pipeline.models import info
from renio_pipeline.types import TrainBatch, Version
from tests.ray import gloo_communicator
from tests.ray.conftest import demo, kill, run, samples_of
from tests.ray.test_sync import largest_gap

WORKERS = [1, 2, 1]
DEADLINE = 20  # seconds; the communicator itself would block for gloo_communicator.BLOCKED_SECONDS
SHORT = 4.0  # seconds that receivers have where one is lost
WIRES: dict[str, dict[str, Any]] = {
    "packed": {},
    "packed in many buffers": {"packed_buffer_size_bytes": 50_000, "packed_num_buffers": 2},
    "one by one": {"packed": False},
}
Weights = list[tuple[str, torch.Tensor]]


class RecordingModel(torch.nn.Module):
    """A model that keeps what it is given, in place of loading it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Weights] = []
        self.fault: str | None = None  # at the third call

    def load_weights(self, weights: Any) -> None:
        if len(self.calls) == 2 and self.fault is not None:
            fail(self.fault, "the model refuses these weights")
        self.calls.append([(name, tensor.clone()) for name, tensor in weights])  # vLLM uses its buffers again


def fail(fault: str, text: str) -> None:
    if fault == "refuse":
        raise ValueError(text)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault])


class Worker(RenioWorker):
    """One worker of an engine: vLLM's receiver, made and called as its worker process does, with our extension mixed in."""

    def __init__(self, backend: str, rank: int, world_size: int) -> None:
        from vllm.config import ParallelConfig, WeightTransferConfig
        from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

        parallel = ParallelConfig(tensor_parallel_size=world_size)
        parallel.rank = rank
        transfer = WeightTransferConfig(backend=backend)
        config: Any = SimpleNamespace(parallel_config=parallel, model_config=None, weight_transfer_config=transfer)
        self.vllm_config, self.device = config, torch.device("cpu")
        self.model = RecordingModel()
        self.model_runner = SimpleNamespace(get_model=lambda: self.model)
        self.weight_transfer_engine = WeightTransferEngineFactory.create_engine(transfer, config, self.device, self.model)

    def start_weight_update(self) -> None:
        self.model.calls, self.model.fault = [], None
        self.weight_transfer_engine.start_weight_update()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.weight_transfer_engine.update_weights(update_info)

    def finish_weight_update(self) -> None:
        self.weight_transfer_engine.finish_weight_update()


class Engine:
    """A generator's side of the protocol. Its workers are threads, of which the first error counts."""

    def __init__(self, workers: int, backend: str = "nccl") -> None:
        if backend == "nccl":
            gloo_communicator.install()
        self.workers = [Worker(backend, rank, workers) for rank in range(workers)]
        self.events: list[Any] = []
        self.version: Version | None = None
        self._fails_at: tuple[str, str] = ("", "")
        self._waiting = Waiting()

    def fail_at(self, verb: str, fault: str = "refuse") -> None:
        """Fail once: at ``init``, at ``start``, at ``update`` before anything is received, or at ``load``, in the middle.

        ``fault``: ``refuse`` with an error, or ``kill`` or ``stop`` this process.
        """
        self._fails_at = verb, fault

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.events.append(("init", init_info))
        self._fail_at("init")
        with self._waiting.for_others() as file:
            self._all("renio_join", init_info, file)

    def start_weight_update(self) -> None:
        self.events.append("start")
        self._fail_at("start")
        self._all("renio_start_update")

    def update_weights(self, update_info: dict[str, Any]) -> float:
        self.events.append("update")
        self._fail_at("update")
        if self._fails_at[0] == "load":
            (_, self.workers[-1].model.fault), self._fails_at = self._fails_at, ("", "")
        with self._waiting.for_others() as file:
            self._all("renio_receive", update_info, file)
        return 0.0

    def finish_weight_update(self, version: Version) -> None:
        self._all("finish_weight_update")
        self.version = version
        self.events.append(("finish", version))

    def abort_weight_update(self) -> None:
        self._waiting.abort()

    def take_events(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def pid(self) -> int:
        return os.getpid()

    def current_version(self) -> Version | None:
        return self.version

    def received(self) -> list[Weights]:
        return [[pair for call in w.model.calls for pair in call] for w in self.workers]

    def load_calls(self) -> list[int]:
        return [len(w.model.calls) for w in self.workers]

    def members(self) -> list[tuple[int, int]]:
        groups = [w.weight_transfer_engine.model_update_group for w in self.workers]
        return [(group.rank, group.world_size) for group in groups]

    def _fail_at(self, verb: str) -> None:
        if self._fails_at[0] == verb:
            (_, fault), self._fails_at = self._fails_at, ("", "")
            fail(fault, f"this engine fails at {verb}")

    def _all(self, verb: str, *args: Any) -> None:
        futures = [on_thread(getattr(worker, verb), *args) for worker in self.workers]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()


class RealEngine(Generator):
    """A generator on ``nccl``, with the fake wire."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        gloo_communicator.install()


class WholeLayers(TorchFunctionMode):
    """Notes, at every torch call, which layers' parameters are whole on this rank."""

    def __init__(self, lm: torch.nn.Module) -> None:
        super().__init__()
        self._parameters = list(lm.named_parameters())
        self.seen: list[frozenset[str]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.now()
        return result

    def now(self) -> frozenset[str]:
        with torch._C.DisableTorchFunction():
            whole = frozenset(".".join(n.split(".")[:3]) for n, p in self._parameters if p.numel())
        self.seen.append(whole)
        return whole


Layout = list[tuple[str, torch.dtype, tuple[int, ...]]]


@dataclass
class Pass:
    """What a pass over a ``DeepSpeedSource`` said and did, on one rank."""

    metadata: Layout
    yielded: Layout
    before: frozenset[str]  # layers that were whole
    whole: list[frozenset[str]]  # at every torch call of the pass
    whole_between: set[frozenset[str]]  # after metadata(), and whenever a tensor was yielded
    after: frozenset[str]


class Rank(TrainerRank):
    """The trainer's own rank, with a fake wire and ways to look into it."""

    def __init__(self, spec: RankSpec, rank: int, world_size: int) -> None:
        super().__init__(spec, rank, world_size)
        gloo_communicator.install()

    def rebuild(self, spec: RankSpec) -> None:
        self._spec = spec
        self._engine = build(spec, self._world_size)

    def count_gathers(self) -> None:
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters
        enter = gathered.__enter__
        self._gathers = 0

        def counting(context: Any) -> Any:
            self._gathers += 1
            return enter(context)

        gathered.__enter__ = counting

    def gathers(self) -> int:
        return self._gathers

    def set_deadline(self, seconds: float) -> None:
        self._spec = replace(self._spec, transfer_seconds=seconds)

    def connect_with(
        self, engines: list[Any], workers: list[int], dtype: str, address: str, port: int, wire: dict[str, Any]
    ) -> None:
        """``connect``, with settings of vLLM's that the pipeline leaves alone."""
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        if self._sender is not None:
            self._sender.close()
        source = DeepSpeedSource(self._lm, dtype=getattr(torch, dtype))
        client = SyncClient(engines, workers, seconds=self._spec.transfer_seconds)
        info = NCCLTrainerInitInfo(address, port, client.world_size, rank=self._rank, **wire)
        self._sender = NativeSender(info, source, client, rank=self._rank)
        self._sender.open()

    def weights(self) -> Weights:
        """All parameters at once, gathered without the pipeline's own code. Collective."""
        import deepspeed

        named = list(self._lm.named_parameters())
        with deepspeed.zero.GatheredParameters([p for _, p in named]):
            return [(name, p.detach().clone()) for name, p in named]

    def members(self) -> list[tuple[int, int]]:
        """Of every transfer group so far that this rank is in."""
        return [(c.rank, c.world_size) for c in gloo_communicator.made]

    def iterate(self, dtype: torch.dtype) -> Pass:
        source = DeepSpeedSource(self._lm, dtype=dtype)
        watch = WholeLayers(self._lm)
        before = watch.now()
        with watch:
            metadata = [(m.name, m.dtype, m.shape) for m in source.metadata()]
            between, yielded = {watch.now()}, []
            for name, tensor in source:
                yielded.append((name, tensor.dtype, tuple(tensor.shape)))
                between.add(watch.now())
        return Pass(metadata, yielded, before, watch.seen, between, watch.now())


class Fleet:
    """Two trainer ranks and three engines."""

    def __init__(self) -> None:
        self.config, prepared = demo(
            "pools.trainer.replicas=2",
            "objective={type: sampled}",
            "trainer.lr=0.003",
            # By default such small parameters would stay whole between steps.
            "trainer.deepspeed={zero_optimization: {stage3_param_persistence_threshold: 0}}",
        )
        self.samples = tuple(samples_of(prepared, 8))
        self.spec = RankSpec(model=info.resolve(self.config.student), trainer=self.config.trainer, steps=100, seed=0)
        options = actor_options(self.config, "trainer")
        self.ranks = [ray.remote(Rank).options(**options).remote(self.spec, rank, 2) for rank in range(2)]
        engine = ray.remote(Engine).options(**actor_options(self.config, "trainer", uses_vllm=True) | {"max_concurrency": 64})
        self.engines = [engine.remote(workers) for workers in WORKERS]
        self.start_victim = lambda: engine.remote(1)
        self.group = TrainerGroup(self.ranks, self.config, prepared.vocab_size, None)
        self.number = 0

    async def start(self) -> None:
        await asyncio.gather(self.group.setup(), *(e.take_events.remote() for e in self.engines))
        self.on_ranks("count_gathers")

    def rebuild(self, zero_stage: int) -> None:
        self.zero_stage = zero_stage
        section = self.config.trainer.model_copy(update={"zero_stage": zero_stage})
        self.on_ranks("rebuild", replace(self.spec, trainer=section))

    def connect(self, dtype: str = "float32", wire: dict[str, Any] | None = None, backend: str = "nccl") -> None:
        self.on_engines("take_events")
        self.connect_to(self.engines, WORKERS, dtype, wire, backend)

    def connect_to(
        self,
        engines: Sequence[Any],
        workers: Sequence[int],
        dtype: str = "float32",
        wire: dict[str, Any] | None = None,
        backend: str = "nccl",
        seconds: float = float(DEADLINE),
    ) -> None:
        self.on_ranks("set_deadline", seconds)
        address, port = ray.get(self.ranks[0].address.remote())
        if wire:
            self.on_ranks("connect_with", engines, workers, dtype, address, port, wire)
        else:
            self.on_ranks("connect", engines, workers, dtype, backend, address, port)

    def publish(self) -> list[SyncReceipt]:
        self.number += 1
        return self.on_ranks("publish", Version(1, self.number))

    def train(self) -> None:
        run(self.group.train(TrainBatch(step=1, samples=self.samples)))

    def on_ranks(self, method: str, *args: Any) -> list[Any]:
        return ray.get([getattr(rank, method).remote(*args) for rank in self.ranks], timeout=3 * DEADLINE)

    def on_engines(self, method: str, *args: Any) -> list[Any]:
        return ray.get([getattr(engine, method).remote(*args) for engine in self.engines], timeout=DEADLINE)

    def received(self) -> list[Weights]:
        """By every worker of every engine, in the last update."""
        return [weights for workers in self.on_engines("received") for weights in workers]

    def weights(self) -> Weights:
        return self.on_ranks("weights")[0]


@pytest.fixture(scope="module")
def unstaged(ray_cluster: None) -> Any:
    fleet = Fleet()
    run(fleet.start())
    yield fleet
    kill([*fleet.ranks, *fleet.engines])


@pytest.fixture(scope="module", params=[0, 3], ids=["zero_0", "zero_3"])
def fleet(request: Any, unstaged: Fleet) -> Fleet:
    unstaged.rebuild(request.param)
    return unstaged


@pytest.fixture(scope="module")
def checkpoint() -> Weights:
    lm = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=torch.float32)
    return [(name, p.detach()) for name, p in lm.named_parameters()]


def assert_equal(received: Weights, expected: Weights, dtype: torch.dtype) -> None:
    """The same parameters in the same order, once each, with every bit of the cast."""
    assert [name for name, _ in received] == [name for name, _ in expected]
    for (name, got), (_, want) in zip(received, expected, strict=True):
        assert (got.dtype, got.shape) == (dtype, want.shape), name
        assert torch.equal(got.view(torch.uint8), want.to(dtype).view(torch.uint8)), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("wire", WIRES)
def test_every_worker_receives_every_parameter_bit_for_bit(fleet: Fleet, wire: str, dtype: str, checkpoint: Weights) -> None:
    fleet.connect(dtype, WIRES[wire])
    receipts = fleet.publish()
    expected = fleet.weights()
    received = fleet.received()
    assert len(received) == sum(WORKERS)
    for weights in received:
        assert_equal(weights, expected, getattr(torch, dtype))
    assert [name for name, _ in expected] == [name for name, _ in checkpoint]  # Hugging Face's names, tied ones once
    size = sum(tensor.nbytes for _, tensor in received[0])
    assert [r.bytes for r in receipts] == [size, 0]
    (calls,) = {count for counts in fleet.on_engines("load_calls") for count in counts}
    every = len(expected)
    least, most = {"packed": (1, 1), "packed in many buffers": (3, every - 1), "one by one": (every, every)}[wire]
    assert least <= calls <= most  # the wire was the one asked for


def test_the_first_sync_delivers_the_checkpoint(fleet: Fleet, checkpoint: Weights) -> None:
    fleet.rebuild(fleet.zero_stage)
    fleet.connect()
    fleet.publish()
    for weights in fleet.received():
        assert_equal(weights, checkpoint, torch.float32)


def test_a_second_sync_over_the_same_group_delivers_what_training_changed(fleet: Fleet) -> None:
    fleet.connect()
    fleet.publish()
    first = fleet.received()
    fleet.train()
    fleet.publish()
    expected = fleet.weights()
    for before, after in zip(first, fleet.received(), strict=True):
        assert_equal(after, expected, torch.float32)
        assert not any(torch.equal(old, new) for (_, old), (_, new) in zip(before, after, strict=True))


def test_the_group_is_the_sender_and_every_worker_each_with_a_rank_of_its_own(fleet: Fleet) -> None:
    before = fleet.on_ranks("members")
    fleet.connect()
    after = fleet.on_ranks("members")
    assert after[0] == [*before[0], (0, 5)]
    assert after[1] == before[1] == []  # the other rank is in no transfer group
    assert fleet.on_engines("members") == [[(1, 5)], [(2, 5), (3, 5)], [(4, 5)]]
    offsets = [events[0][1]["rank_offset"] for events in fleet.on_engines("take_events")]
    assert offsets == [1, 2, 4]


def test_engines_see_start_update_finish_once_and_the_version_with_finish(fleet: Fleet) -> None:
    fleet.connect()
    for events in fleet.on_engines("take_events"):
        assert [event[0] for event in events] == ["init"]
    for _ in range(2):
        fleet.publish()
        version = Version(1, fleet.number)
        assert fleet.on_engines("take_events") == [["start", "update", ("finish", version)]] * 3
        assert fleet.on_engines("current_version") == [version] * 3


@pytest.mark.parametrize("fleet", [3], ids=["zero_3"], indirect=True)
def test_the_other_rank_gathers_every_layer_and_sends_nothing(fleet: Fleet) -> None:
    fleet.connect()
    before = fleet.on_ranks("gathers")
    fleet.on_engines("take_events")
    receipts = fleet.publish()
    gathers = [after - first for after, first in zip(fleet.on_ranks("gathers"), before, strict=True)]
    assert gathers == [5, 5]  # the embedding, three layers and the last norm
    assert receipts[0].bytes > 0
    assert receipts[1].bytes == 0
    assert [len(events) for events in fleet.on_engines("take_events")] == [3, 3, 3]
    assert fleet.on_ranks("members")[1] == []


FAILURES = [("start", "packed"), ("update", "packed"), ("load", "packed in many buffers"), ("load", "one by one")]


@pytest.mark.parametrize(("verb", "wire"), FAILURES)
def test_a_failing_receiver_ends_the_sync_on_every_rank_and_nothing_is_finished(fleet: Fleet, verb: str, wire: str) -> None:
    fleet.connect(wire=WIRES[wire])
    fleet.publish()
    good = Version(1, fleet.number)
    fleet.on_engines("take_events")
    ray.get(fleet.engines[1].fail_at.remote(verb))
    assert_publish_fails(fleet, "this engine fails at|the model refuses these weights")
    events = fleet.on_engines("take_events")
    assert events == [["start"] if verb == "start" else ["start", "update"]] * 3
    assert fleet.on_engines("current_version") == [good] * 3

    assert_publish_fails(fleet, "connect the generators again")
    assert fleet.on_engines("take_events") == [[]] * 3

    fleet.connect(wire=WIRES[wire])
    fleet.publish()
    assert fleet.on_engines("current_version") == [Version(1, fleet.number)] * 3
    for weights in fleet.received():
        assert_equal(weights, fleet.weights(), torch.float32)


def test_a_failing_receiver_of_host_memory_leaves_no_rank_waiting_either(fleet: Fleet) -> None:
    fleet.connect(backend="host")
    ray.get(fleet.engines[1].fail_at.remote("start"))
    assert_publish_fails(fleet, "this engine fails at start")


def assert_publish_fails(fleet: Fleet, match: str) -> None:
    """The first rank raises and the other one returns, in time."""
    first, second = (rank.publish.remote(Version(1, fleet.number + 1)) for rank in fleet.ranks)
    with pytest.raises((ValueError, RuntimeError), match=match):
        ray.get(first, timeout=DEADLINE)
    ray.get(second, timeout=DEADLINE)


@pytest.fixture(scope="module")
def survivor(unstaged: Fleet) -> Any:
    config, prepared = demo("objective={type: sampled}")
    actor = ray.remote(RealEngine).options(**actor_options(config, "generator", uses_vllm=True))
    made = actor.remote(replace(generator_spec(config, prepared), sync_backend="nccl"))
    ray.get(made.ready.remote())
    yield made
    kill([made])


@pytest.mark.parametrize("fleet", [3], ids=["zero_3"], indirect=True)
@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_a_receiver_lost_in_the_middle_of_a_transfer_is_named_and_the_others_go_on_without_it(
    fleet: Fleet, survivor: Any, fault: str
) -> None:
    victim = fleet.start_victim()
    pid = ray.get(victim.pid.remote())
    fleet.train()
    assert run(largest_gap(fleet.group, survivor, fleet.samples)) > 0.05, "nothing has to be sent"
    fleet.connect_to([survivor, victim], [1, 1], wire=WIRES["one by one"], seconds=SHORT)
    ray.get(victim.fail_at.remote("load", fault))
    started = time.monotonic()
    first, second = (rank.publish.remote(Version(1, fleet.number + 1)) for rank in fleet.ranks)
    with pytest.raises(TransferFailed, match="connect the remaining receivers") as failed:
        ray.get(first, timeout=3 * SHORT)
    assert time.monotonic() - started < 2 * SHORT + 2
    (reason,) = lost_of(failed.value, 1)
    assert ("died" if fault == "kill" else "did not answer update_weights in time") in reason
    ray.get(second, timeout=DEADLINE)
    with pytest.raises(EngineFailed, match="half way"):  # nothing is sampled from a mixture
        run(largest_gap(fleet.group, survivor, fleet.samples))
    assert_others_go_on(fleet, survivor, victim, pid)


@pytest.mark.parametrize("fleet", [3], ids=["zero_3"], indirect=True)
def test_a_receiver_that_does_not_come_to_the_rendezvous_is_named_and_the_others_meet_without_it(
    fleet: Fleet, survivor: Any
) -> None:
    victim = fleet.start_victim()
    pid = ray.get(victim.pid.remote())
    ray.get(victim.fail_at.remote("init", "stop"))
    started = time.monotonic()
    with pytest.raises(TransferFailed) as failed:
        fleet.connect_to([survivor, victim], [1, 1], seconds=SHORT)
    assert time.monotonic() - started < 2 * SHORT + 2
    assert lost_of(failed.value, 1) == ["did not answer init_weight_transfer_engine in time"]
    assert_publish_fails(fleet, "connect the generators again")
    assert_others_go_on(fleet, survivor, victim, pid)


@pytest.mark.parametrize("fleet", [3], ids=["zero_3"], indirect=True)
def test_a_receiver_that_waits_for_a_sender_that_is_gone_comes_to_the_next_group(fleet: Fleet, survivor: Any) -> None:
    fleet.connect_to([survivor], [1])
    ray.get(survivor.start_weight_update.remote())
    waiting = survivor.update_weights.remote({"names": ["any"], "dtype_names": ["float32"], "shapes": [[4]]})
    assert ray.wait([waiting], timeout=1)[0] == [], "nobody sends, and still it ends"
    fleet.connect_to([survivor], [1])
    with pytest.raises(TransferAborted):
        ray.get(waiting, timeout=DEADLINE)
    fleet.publish()
    assert run(largest_gap(fleet.group, survivor, fleet.samples)) < 1e-4


def lost_of(error: TransferFailed, *indices: int) -> list[str]:
    assert error.lost.keys() == set(indices)
    return list(error.lost.values())


def assert_others_go_on(fleet: Fleet, survivor: Any, victim: Any, pid: int) -> None:
    fleet.connect_to([survivor], [1])
    fleet.publish()
    assert run(largest_gap(fleet.group, survivor, fleet.samples)) < 1e-4
    assert ray.get(survivor.weight_version.remote()) == f"1.{fleet.number}"
    kill([victim])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # Ray asks first, and a stopped process does not hear it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_metadata_is_what_iteration_yields_with_whole_shapes(fleet: Fleet, dtype: torch.dtype, checkpoint: Weights) -> None:
    expected = [(name, dtype, tuple(tensor.shape)) for name, tensor in checkpoint]
    for done in fleet.on_ranks("iterate", dtype):
        assert done.metadata == expected
        assert done.yielded == expected


@pytest.mark.parametrize("fleet", [3], ids=["zero_3"], indirect=True)
def test_zero_3_gathers_a_layer_at_a_time_and_frees_it_before_it_is_handed_on(fleet: Fleet) -> None:
    layers = {"model.embed_tokens.weight", "model.norm.weight", *(f"model.layers.{i}" for i in range(3))}
    for done in fleet.on_ranks("iterate", torch.float32):
        assert done.before == done.after == frozenset()
        assert max(map(len, done.whole)) == 1
        assert frozenset().union(*done.whole) == layers
        assert done.whole_between == {frozenset()}


# Without Ray and without a group: what is left of ``ipc`` and of the sender's deadline.


class FakeTrainerEngine:
    """In the place of vLLM's ``ipc`` trainer engine, which needs a GPU to be made."""

    made: ClassVar[list[Any]] = []

    def __init__(self, init_info: Any, client: Any, source: Any) -> None:
        self.init_info, self.client, self.source = init_info, client, source
        self.sent: Layout = []
        self.made.append(self)

    @classmethod
    def trainer_init(cls, init_info: Any, *, client: Any, source: Any) -> Any:
        if init_info.is_sender:
            client.init_weight_transfer_engine({"packed": init_info.packed})
        return cls(init_info, client, source)

    def send_weights(self) -> None:
        self.sent = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.source]
        if self.init_info.is_sender:
            self.client.start_weight_update()
            self.client.update_weights({})
            self.client.finish_weight_update()

    def shutdown(self) -> None:
        pass


class StuckTrainerEngine(FakeTrainerEngine):
    """Its broadcast never ends, whatever becomes of the receivers."""

    def send_weights(self) -> None:
        on_thread(self.client.update_weights, {})
        threading.Event().wait()


@pytest.fixture
def source() -> DeepSpeedSource:
    lm = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=torch.float32)
    return DeepSpeedSource(lm, dtype=torch.bfloat16)


@pytest.fixture
def trainer_engine(request: Any, monkeypatch: Any) -> Any:
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

    monkeypatch.setitem(WeightTransferTrainerFactory._registry, "ipc", lambda: request.param)
    monkeypatch.setattr(request.param, "made", [])
    return request.param


def ask_here(engine: Any, verb: str, *arguments: Any) -> Future[Any]:
    return on_thread(getattr(engine, verb), *arguments)


def opened(
    backend: str,
    source: Any,
    engines: Sequence[Any],
    workers: Sequence[int],
    *,
    rank: int,
    seconds: float = 60,
    packed_bytes: int | None = None,
) -> Any:
    client = SyncClient(engines, workers, seconds=seconds, ask=ask_here)
    sender = make_sender(backend, source, client, rank=rank, packed_bytes=packed_bytes)
    sender.open()
    return sender


@pytest.mark.parametrize("trainer_engine", [FakeTrainerEngine], indirect=True)
def test_ipc_passes_the_rank_on_and_goes_through_the_same_client(source: DeepSpeedSource, trainer_engine: Any) -> None:
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

    engines = [Engine(0, "ipc"), Engine(0, "ipc")]
    receipts = [opened("ipc", source, engines, [1, 2], rank=rank).send(Version(2, 7)) for rank in (0, 1)]
    first, second = trainer_engine.made
    assert [first.init_info, second.init_info] == [
        IPCTrainerInitInfo(rank=rank, packed=True, packed_buffer_size_bytes=PACKED_BYTES) for rank in (0, 1)
    ]
    assert first.sent == second.sent == [(m.name, m.dtype, m.shape) for m in source.metadata()]
    protocol = [("init", {"packed": True}), "start", "update", ("finish", Version(2, 7))]
    assert [engine.take_events() for engine in engines] == [protocol] * 2  # from the first rank alone
    assert [r.bytes > 0 for r in receipts] == [True, False]


class Handle:
    """Memory of this process in the place of a CUDA handle: however it travels, it means the same memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __deepcopy__(self, memo: Any) -> Handle:
        return self


@pytest.fixture
def ipc_handles(monkeypatch: Any) -> None:
    from torch.multiprocessing import reductions
    from vllm.distributed.weight_transfer import packed_tensor

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device=None, **more: empty(*size, **more))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="GPU-0"))
    monkeypatch.setattr(torch.cuda, "ipc_collect", lambda: None)
    monkeypatch.setattr(packed_tensor, "reduce_tensor", lambda tensor: (None, (Handle(tensor), 0, 0, 0, 0, 0, 0)))
    monkeypatch.setattr(reductions, "rebuild_cuda_tensor", lambda handle, *rest: handle.tensor)


@pytest.mark.parametrize("buffers", ["one", "many"])
def test_ipc_delivers_every_parameter_when_only_the_cuda_handles_are_replaced(
    source: DeepSpeedSource, checkpoint: Weights, ipc_handles: None, buffers: str
) -> None:
    """In many buffers it is one that is written again and again: nothing may still be read from it by then."""
    engines = [Engine(1, "ipc"), Engine(1, "ipc")]
    packed_bytes = largest_tensor(source) if buffers == "many" else None
    opened("ipc", source, engines, [1, 1], rank=0, packed_bytes=packed_bytes).send(Version(2, 7))
    for engine in engines:
        assert engine.version == Version(2, 7)
        assert_equal(engine.received()[0], checkpoint, torch.bfloat16)
        updates = engine.take_events().count("update")
        assert updates == 1 if buffers == "one" else updates > 3


def test_ipc_leaves_out_a_receiver_that_hangs_and_the_others_have_their_weights(
    source: DeepSpeedSource, checkpoint: Weights, ipc_handles: None
) -> None:
    engines = [Engine(1, "ipc"), Engine(1, "ipc")]
    sender = opened("ipc", source, engines, [1, 1], rank=0, seconds=1)
    hung = threading.Event()
    engines[0].update_weights = lambda update_info: hung.wait(60)  # type: ignore[method-assign]
    receipt = sender.send(Version(2, 7))
    hung.set()
    assert receipt.lost == {0: "did not answer update_weights in time"}
    assert [engine.version for engine in engines] == [None, Version(2, 7)]
    assert_equal(engines[1].received()[0], checkpoint, torch.bfloat16)


@pytest.mark.parametrize("verb", ["start", "update"])
def test_ipc_raises_a_receivers_error_after_the_collectives_that_its_ranks_have(
    source: DeepSpeedSource, ipc_handles: None, monkeypatch: Any, verb: str
) -> None:
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerWeightTransferEngine

    ends = []
    monkeypatch.setattr(IPCTrainerWeightTransferEngine, "_post_send_sync", staticmethod(lambda: ends.append(1)))
    engine = Engine(1, "ipc")
    sender = opened("ipc", source, [engine], [1], rank=0)
    engine.fail_at(verb)
    with pytest.raises(ValueError, match=f"this engine fails at {verb}"):
        sender.send(Version(2, 7))
    assert ends == [1, 1]  # after the one buffer, and at the end
    assert engine.version is None


@pytest.mark.parametrize("trainer_engine", [StuckTrainerEngine], indirect=True)
def test_a_failed_receiver_raises_even_if_the_engine_cannot_be_stopped(
    source: DeepSpeedSource, trainer_engine: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(vllm_client, "ABORT_SECONDS", 0.1)
    engine = Engine(0, "ipc")
    sender = opened("ipc", source, [engine], [1], rank=0)
    engine.fail_at("update")
    with pytest.raises(ValueError, match="this engine fails at update"):
        sender.send(Version(0, 1))
    assert engine.version is None


@pytest.mark.parametrize("trainer_engine", [StuckTrainerEngine], indirect=True)
def test_a_transfer_that_never_ends_raises_at_the_deadline(
    source: DeepSpeedSource, trainer_engine: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(vllm_client, "ABORT_SECONDS", 0.1)
    engine = Engine(0, "ipc")
    sender = opened("ipc", source, [engine], [1], rank=0, seconds=0.3)
    with pytest.raises(TimeoutError, match=r"version 0\.1 was not sent within 0\.3 s"):
        sender.send(Version(0, 1))
    assert engine.version is None


@pytest.mark.parametrize("trainer_engine", [FakeTrainerEngine], indirect=True)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_optimizers_work_has_landed_before_the_engine_reads(
    source: DeepSpeedSource, trainer_engine: Any, rank: int, monkeypatch: Any
) -> None:
    order = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: order.append("synchronize"))
    monkeypatch.setattr(trainer_engine, "send_weights", lambda self: order.append("send"))
    opened("ipc", source, [], [], rank=rank).send(Version(0, 1))
    assert order == ["synchronize", "send"]
