"""Checkpoints of DeepSpeed ranks: what another group of ranks loads is what was saved, and the step does not wait for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from actors.cluster.placement import actor_options
from actors.pools.jobs import Service
from actors.pools.worker import CONTROL
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec, Restore
from actors.trainer.rank import TrainerRank
from actors.trainer.supervisor import Trainers
from actors.weight_sync.sender import SyncReceipt
from renio_pipeline.config.schema import Lora, Opsd
from renio_pipeline.models import info
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.checkpointing import CheckpointError
from renio_pipeline.run_dir.fence import Fence
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.types import TrainBatch, TrainSample, Version
from tests.ray.conftest import demo, run, samples_of
from tests.ray.running_cluster import wait_until

Tensors = dict[str, np.ndarray]


class ReusedRank(TrainerRank):
    """A rank that becomes another one: starting a process costs more than the cases."""

    def become(self, spec: RankSpec, address: str, port: int) -> None:
        TrainerRank.__init__(self, spec, self._rank, self._world_size)
        self.setup(address, port)
        if spec.follow is not None:
            self.connect_teacher([], [])

    def whole_state(self) -> Tensors:
        """Master weights and both moments of every trained parameter, whole and in fp32; and the average. Collective."""
        import torch
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        found: Tensors = {}
        if hasattr(self._engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()  # else only the first step after loading does
        for name, p in self._lm.named_parameters():
            if not p.requires_grad:
                continue
            if self._spec.trainer.zero_stage or hasattr(p, "_hp_mapping"):
                parts = [safe_get_full_fp32_param(p), *(safe_get_full_optimizer_state(p, key) for key in MOMENTS)]
            else:
                optimizer, master = self._engine.optimizer, p
                if hasattr(optimizer, "fp32_groups"):  # bf16 without ZeRO
                    master = dict(zip(map(id, optimizer.fp16_groups[0]), optimizer.fp32_groups[0], strict=True))[id(p)]
                state = getattr(optimizer, "optimizer", optimizer).state[master]
                parts = [master.detach(), *(state[key] for key in MOMENTS)]
            found |= {f"{name} {k}": t.float().numpy().copy() for k, t in zip(("weight", *MOMENTS), parts, strict=True)}
        found |= {f"ema {name}": t.numpy().copy() for name, t in (self._ema._average if self._ema else {}).items()}
        return found | {"random": torch.rand(4).numpy(), "lr": np.array(self._engine.get_lr())}

    def slow_disk(self, seconds: float) -> None:
        """Every file takes so long from now on."""
        import torch

        save = torch.save

        def slowly(*args: Any, **kwargs: Any) -> None:
            time.sleep(seconds)
            save(*args, **kwargs)

        torch.save = slowly if seconds else getattr(self, "_save", save)
        self._save = save


MOMENTS = ("exp_avg", "exp_avg_sq")


class Ranks:
    def __init__(self, world_size: int) -> None:
        self.config, self.prepared = demo(
            "trainer.lr=0.001", f"pools.trainer.replicas={world_size}", "objective={type: sampled}"
        )
        self.spec = RankSpec(model=info.resolve(self.config.student), trainer=self.config.trainer, steps=10, seed=0)
        actor = ray.remote(concurrency_groups={CONTROL: 1})(ReusedRank).options(**actor_options(self.config, "trainer"))
        self.actors = [actor.remote(self.spec, i, world_size) for i in range(world_size)]
        self.size = world_size
        self.address = ray.get(self.actors[0].address.remote())
        self.samples = samples_of(self.prepared, 8)

    def become(self, zero_stage: int, origin: tuple[Path, int] | None = None, **changes: Any) -> TrainerGroup:
        """A new engine on the same processes, from a checkpoint (its folder and number of ranks) if one is given."""
        trainer = self.config.trainer.model_copy(update={"zero_stage": zero_stage} | changes.pop("trainer", {}))
        restore = None
        if origin is not None:
            same = origin[1] == self.size
            restore = Restore(folder=str(origin[0]), same_shape=same, universal=not same and zero_stage > 0)
        spec = replace(self.spec, trainer=trainer, restore=restore, **changes)
        if restore and restore.universal:
            ray.get(self.actors[0].__ray_call__.remote(lambda rank: setattr(rank, "_spec", spec)))
            ray.get(self.actors[0].make_universal.remote())
        ray.get([rank.become.remote(spec, *self.address) for rank in self.actors])
        return TrainerGroup(self.actors, self.config, self.prepared.vocab_size, None, restore)

    def state(self) -> Tensors:
        """Of all ranks: each has a share of the average; all else is the same on each, but for random states."""
        found: Tensors = {}
        for rank, state in enumerate(ray.get([rank.whole_state.remote() for rank in self.actors])):
            found |= {f"random {rank}" if name == "random" else name: value for name, value in state.items()}
        return found

    def batch(self, step: int) -> TrainBatch:
        shift: list[TrainSample] = self.samples[step:] + self.samples[:step]
        return TrainBatch(step=step, samples=tuple(shift))


@pytest.fixture(scope="module")
def one(ray_cluster: None) -> Ranks:
    return Ranks(1)


@pytest.fixture(scope="module")
def two(ray_cluster: None) -> Ranks:
    return Ranks(2)


async def train_and_save(group: TrainerGroup, ranks: Ranks, steps: range, folder: Path) -> None:
    for step in steps:
        await group.train(ranks.batch(step))
    await group.save(str(folder))
    await group.written()


def assert_equal(found: Tensors, expected: Tensors, *, atol: float = 0, but: str = "none") -> None:
    names = {name for name in expected if not name.startswith(but)}
    assert names == {name for name in found if not name.startswith(but)}
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol, err_msg=name)


VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"trainer": {"lora": Lora(r=4, alpha=8)}, "merged_checkpoint": False},
    "ema": {"follow": Opsd(teacher="ema", decay=0.5)},
    "bf16": {"trainer": {"dtype": "bfloat16"}},
}


CASES = [
    (0, "full"),
    (0, "bf16"),
    (1, "full"),
    (2, "full"),
    (3, "full"),
    (2, "lora"),
    (3, "lora"),
    (2, "ema"),
    (1, "bf16"),
    (3, "bf16"),
]


@pytest.mark.parametrize(("zero_stage", "variant"), CASES)
def test_two_ranks_then_one_then_two_again_have_the_same_state_and_train_on_from_it(
    one: Ranks, two: Ranks, tmp_path: Path, zero_stage: int, variant: str
) -> None:
    changes = VARIANTS[variant]
    group = two.become(zero_stage, **dict(changes))
    run(train_and_save(group, two, range(1, 3), tmp_path / "a"))
    saved = two.state()
    assert max(np.abs(v).max() for k, v in saved.items() if k.endswith("exp_avg")) > 0

    group = one.become(zero_stage, (tmp_path / "a", 2), **dict(changes))
    assert_equal(one.state(), saved, but="random")
    run(train_and_save(group, one, range(3, 4), tmp_path / "b"))
    after_one = one.state()
    assert max(float(np.abs(after_one[k] - saved[k]).max()) for k in saved if k.endswith("weight")) > 1e-5

    two.become(zero_stage, (tmp_path / "b", 1), **dict(changes))
    assert_equal(two.state(), after_one, but="random")

    group = two.become(zero_stage, (tmp_path / "a", 2), **dict(changes))
    assert_equal(two.state(), saved)  # the same shape: random states too
    run(group.train(two.batch(3)))
    # The sums are in another order; in bf16 gradients themselves are rounded.
    assert_equal(two.state(), after_one, atol=2e-3 if variant == "bf16" else 1e-5, but="random")


def test_the_schedule_is_that_of_the_run_which_goes_on(one: Ranks, tmp_path: Path) -> None:
    run(train_and_save(one.become(1, trainer={"schedule": "linear", "lr": 1e-3}), one, range(1, 5), tmp_path / "a"))
    assert one.state()["lr"] == pytest.approx(0.6e-3)
    one.become(1, (tmp_path / "a", 1), trainer={"schedule": "linear", "lr": 1e-3}, steps=40)
    assert one.state()["lr"] == pytest.approx(0.9e-3)


def test_training_goes_on_while_a_slow_disk_is_written_to_and_the_files_are_of_the_step_saved(
    two: Ranks, tmp_path: Path
) -> None:
    group = two.become(2)
    run(group.train(two.batch(1)))
    before = two.state()

    async def go() -> tuple[float, float]:
        started = time.perf_counter()
        await group.save(str(tmp_path / "a"))
        await group.train(two.batch(2))
        trained = time.perf_counter() - started
        await group.written()
        return trained, time.perf_counter() - started

    ray.get([rank.slow_disk.remote(4.0) for rank in two.actors])
    try:
        trained, on_disk = run(go())
    finally:
        ray.get([rank.slow_disk.remote(0) for rank in two.actors])
    assert on_disk > 8  # two files a rank at least, one after the other
    assert trained < on_disk - 3
    two.become(2, (tmp_path / "a", 2))
    assert_equal(two.state(), before, but="random")  # drawn from since


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB: a checkpoint of the demo's student takes 8. Where none can be mounted, files end at 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    yield folder
    if mounted.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("reserve", ["kept", "used up"])
def test_a_full_disk_fails_the_checkpoint_by_name_and_the_ranks_train_on(two: Ranks, small_disk: Path, reserve: str) -> None:
    """Nothing is begun that would leave too little for the run's other files; and the error of the write itself is told."""
    group = two.become(2)
    run(group.train(two.batch(1)))
    if reserve == "used up" or not os.path.ismount(small_disk):
        ray.get([rank.__ray_call__.remote(_writes_till_it_fails, not os.path.ismount(small_disk)) for rank in two.actors])
    run(group.save(str(small_disk / "a")))
    with pytest.raises(
        CheckpointError, match=r"trainer rank \d: OSError: \[Errno (28|27)\] (No space left on device|File too large)"
    ):
        run(group.written())
    ray.get([rank.__ray_call__.remote(_as_before) for rank in two.actors])
    report = run(group.train(two.batch(2)))
    assert np.isfinite(report.loss)


def _writes_till_it_fails(rank: Any, by_limit: bool) -> None:
    import resource
    import signal

    from actors.trainer import checkpoint_writer

    rank._reserve, checkpoint_writer.RESERVE_BYTES = checkpoint_writer.RESERVE_BYTES, -(2**40)
    if by_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _as_before(rank: Any) -> None:
    import resource

    from actors.trainer import checkpoint_writer

    checkpoint_writer.RESERVE_BYTES = getattr(rank, "_reserve", checkpoint_writer.RESERVE_BYTES)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_nothing_is_copied_twice_where_it_is_one_tensor_and_nothing_changes_with_the_original() -> None:
    import torch

    from actors.trainer.checkpoint_writer import host_copy

    tied = torch.arange(6.0).reshape(2, 3)
    copied, size = host_copy({"a": tied, "b": [tied, tied[:1]], "shape": tied.shape, "n": 3})
    tied += 1
    assert size == (6 + 3) * 4
    assert copied["a"] is copied["b"][0]
    assert copied["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copied["shape"] == torch.Size([2, 3])


def test_a_rank_whose_driver_has_lost_the_runs_directory_writes_no_further_file(tmp_path: Path) -> None:
    from actors.trainer.checkpoint_writer import Writer

    lease = tmp_path / "1"
    lease.write_text("token")
    writer = Writer(Fence(str(lease), "token"))
    writer.add(tmp_path / "first", 1, lambda: (tmp_path / "first").touch())
    assert wait_until(lambda: writer.state().done, 60, every=0.01)
    assert writer.state().failure is None
    lease.unlink()
    writer.begin()
    writer.add(tmp_path / "folder" / "second", 1, lambda: (tmp_path / "folder" / "second").touch())
    assert wait_until(lambda: writer.state().done, 60, every=0.01)
    assert str(writer.state().failure).startswith("LeaseLostError: ")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_gathering_waits_for_every_rank_before_it_says_what_failed() -> None:
    from actors.trainer.messages import WriteState

    states = {
        0: [WriteState(done=True, failure="OSError: full")] * 3,
        1: [WriteState(done=False)] * 2 + [WriteState(done=True)],
    }

    class Rank:
        def __init__(self, index: int) -> None:
            self.left = states[index]
            self.written = self

        def options(self, concurrency_group: str) -> Rank:
            assert concurrency_group == CONTROL
            return self

        async def remote(self) -> WriteState:
            return self.left.pop(0)

    group = TrainerGroup([Rank(0), Rank(1)], demo()[0], 16, None)
    with pytest.raises(CheckpointError, match=r"^trainer rank 0: OSError: full$"):
        asyncio.run(group.written())
    assert not any(states.values())


class FakeGroup:
    """Ranks that only say what they sent."""

    size = 1

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []

    async def setup(self) -> None: ...

    async def ping(self) -> list[int]:
        return [0]

    def end(self, pids: Sequence[int]) -> None: ...

    async def connect(self, actors: Sequence[Any], workers: Sequence[int]) -> None: ...

    connect_teacher = connect

    async def publish(self, version: Version) -> SyncReceipt:
        return self._send("generators", version)

    async def publish_teacher(self, version: Version) -> SyncReceipt:
        return self._send("teachers", version)

    def _send(self, to: str, version: Version) -> SyncReceipt:
        self.sent.append((to, version.number))
        return SyncReceipt(version=version, bytes=1, publish_seconds=0, receive_seconds=0, seconds=0)


def test_teachers_that_follow_get_weights_at_once_when_a_run_goes_on_between_their_turns() -> None:
    config, _ = demo("teacher.model=null", "method={type: opsd, teacher: latest, refresh_every: 2}")
    group: Any = FakeGroup()

    async def go() -> None:
        service = Service(config=config, quarantine=QuarantineLog(None, lambda text: None))
        trainers = Trainers(lambda point: group, None, None, service)
        await trainers.begin(ResumePoint())
        for number in (3, 4, 5):
            await trainers.publish(Version(1, number))
        await trainers.end()

    asyncio.run(go())
    assert [number for to, number in group.sent if to == "teachers"] == [3, 4]
    assert [number for to, number in group.sent if to == "generators"] == [3, 4, 5]
