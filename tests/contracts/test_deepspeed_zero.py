"""What DeepSpeed does to parameters and optimizers at each ZeRO stage: engines of two layers, one rank, in this process."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch

from tests.contracts.reliance import relied_on

SECONDS = 77  # unlike any default
Engines = Callable[[str, int], Any]
DIVIDE_ALL = {"stage3_param_persistence_threshold": 0}  # by default small parameters stay whole at ZeRO 3
STAGES = [(dtype, stage) for dtype, stage in itertools.product(("float32", "bfloat16"), range(4))]


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """A process group of one rank, joined as a trainer rank joins its own, with a deadline for collectives."""
    import deepspeed

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RANK": 0,
            "WORLD_SIZE": 1,
            "LOCAL_RANK": 0,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }.items():
            patch.setenv(name, str(value))
        patch.setattr(deepspeed.ops, "__compatible_ops__", {}, raising=False)
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False, timeout=timedelta(seconds=SECONDS))
        yield
        deepspeed.comm.destroy_process_group()


@pytest.fixture(scope="module")
def engines(group: None) -> Engines:
    """An engine by dtype and stage, with torch's AdamW and a schedule; made once each."""
    import deepspeed
    from transformers import get_scheduler

    from actors.trainer.deepspeed_engine import engine_config
    from renio_pipeline.config.schema import Trainer

    made: dict[tuple[str, int], Any] = {}

    def engine(dtype: str, stage: int) -> Any:
        if (dtype, stage) not in made:
            section = Trainer(zero_stage=stage, dtype=dtype, deepspeed={"zero_optimization": DIVIDE_ALL})  # type: ignore[arg-type]
            config = engine_config(section, 1)
            model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)).to(getattr(torch, dtype))
            made[dtype, stage], *_ = deepspeed.initialize(
                model=model,
                optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
                config=config,
                lr_scheduler=lambda optimizer: get_scheduler("linear", optimizer, 0, 10),
            )
            step(made[dtype, stage])
        return made[dtype, stage]

    return engine


def step(engine: Any, factor: float = 1.0) -> None:
    engine.set_gradient_accumulation_boundary(True)
    loss = engine(torch.ones(3, 4, dtype=next(engine.module.parameters()).dtype)).float().square().sum()
    engine.backward(loss * factor, scale_wrt_gas=False)
    engine.step()


def deadline(group: Any) -> timedelta:
    return group._get_backend(torch.device("cpu")).options._timeout


@relied_on(
    "deepspeed",
    "actors.trainer.deepspeed_engine.build",
    "actors.trainer.weight_source.DeepSpeedSource.__iter__",
    breaks="the rendezvous's deadline would not be that of the gathers in which ranks wait during a weight sync",
)
def test_the_deadline_of_the_rendezvous_is_that_of_gathers_and_not_of_reductions(engines: Engines) -> None:
    from deepspeed.utils import groups

    weight = engines("bfloat16", 3).module[0].weight
    assert deadline(torch.distributed.group.WORLD) == timedelta(seconds=SECONDS)
    assert deadline(weight.ds_process_group) == timedelta(seconds=SECONDS)
    # DeepSpeed makes a second group of all ranks for data parallelism, and hands no deadline on: torch's default counts.
    assert deadline(groups._get_data_parallel_group()) == torch.distributed.constants.default_pg_timeout


@relied_on(
    "torch",
    "actors.trainer.deepspeed_engine.wait_for_others",
    breaks="ranks that reduce gradients would abort before a receiver that hangs is given up",
)
def test_every_group_can_be_given_one_deadline(engines: Engines) -> None:
    from deepspeed.utils import groups
    from torch.distributed import distributed_c10d

    from actors.trainer.deepspeed_engine import wait_for_others

    engines("bfloat16", 3)
    before = {group: deadline(group) for group in distributed_c10d._world.pg_map}
    assert len(before) > 1
    try:
        wait_for_others(timedelta(seconds=123))
        assert deadline(groups._get_data_parallel_group()) == timedelta(seconds=123)
        assert {deadline(group) for group in distributed_c10d._world.pg_map} == {timedelta(seconds=123)}
    finally:
        for group, seconds in before.items():
            distributed_c10d._set_pg_timeout(seconds, group)


@pytest.mark.parametrize(("dtype", "stage"), STAGES)
@relied_on(
    "deepspeed",
    "actors.trainer.deepspeed_engine.optimizer_step",
    breaks="gradients that are not finite would be trained on, or the norm be taken from where it is not",
)
def test_the_gradient_s_norm_is_the_optimizer_s_and_is_not_finite_for_nan(engines: Engines, dtype: str, stage: int) -> None:
    engine = engines(dtype, stage)
    whole = dtype == "float32" and stage == 0  # then the optimizer is torch's own, which knows no norm
    assert hasattr(engine.optimizer, "_global_grad_norm") is not whole
    if not whole:
        assert 0 < float(engine.get_global_grad_norm()) < 1e3
        step(engine, float("nan"))
        assert not torch.isfinite(torch.tensor(float(engine.get_global_grad_norm())))
        step(engine)


@pytest.mark.parametrize(("dtype", "stage"), STAGES)
@relied_on(
    "deepspeed",
    "actors.trainer.weight_source.DeepSpeedSource",
    "actors.trainer.following_teacher._master",
    "actors.trainer.offload._model_tensors",
    breaks="parts of parameters would be sent or averaged in the place of whole ones",
)
def test_parameters_say_how_they_are_held(engines: Engines, dtype: str, stage: int) -> None:
    from deepspeed.utils import safe_get_full_fp32_param

    weight = engines(dtype, stage).module[0].weight
    assert hasattr(weight, "ds_id") is (stage == 3)
    assert hasattr(weight, "_hp_mapping") is (stage in (1, 2))
    if stage == 3:
        assert tuple(weight.shape) == (0,)
        assert tuple(weight.ds_shape) == (8, 4)
        assert weight.ds_tensor.numel() == 32
    if stage:
        master = safe_get_full_fp32_param(weight)
        assert (master.dtype, tuple(master.shape)) == (torch.float32, (8, 4))


@relied_on(
    "deepspeed",
    "actors.trainer.weight_source.DeepSpeedSource.__iter__",
    breaks="parameters of a layer would not be gathered whole",
)
def test_gathered_parameters_are_whole_inside_and_parts_outside(engines: Engines) -> None:
    import deepspeed

    weight = engines("bfloat16", 3).module[0].weight
    with deepspeed.zero.GatheredParameters([weight]):
        assert tuple(weight.shape) == (8, 4)
    assert tuple(weight.shape) == (0,)


@pytest.mark.parametrize(("dtype", "stage"), STAGES)
@relied_on(
    "deepspeed",
    "actors.trainer.offload._optimizer_tensors",
    "actors.trainer.offload._movable",
    breaks="moments or master weights would stay on the GPU while a generator has it",
)
def test_moments_and_master_weights_are_found_in_the_optimizer(engines: Engines, dtype: str, stage: int) -> None:
    from actors.trainer.offload import _optimizer_tensors

    optimizer = engines(dtype, stage).optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    assert isinstance(inner, torch.optim.AdamW)
    if stage == 3:
        assert [group["params"] for group in inner.param_groups] == [[]]  # filled for a step alone
        assert sum(t.numel() for t in optimizer.fp32_partitioned_groups_flat) == 58
    moments = [value for state in inner.state.values() for key, value in state.items() if key in ("exp_avg", "exp_avg_sq")]
    assert sum(t.numel() for t in moments) == 2 * 58
    assert {t.dtype for t in moments} == {torch.float32}
    found = {id(t) for t in _optimizer_tensors(optimizer)}
    assert {id(t) for t in moments} <= found


@pytest.mark.parametrize(("dtype", "stage"), [("float32", 0), ("bfloat16", 2)])
@relied_on(
    "deepspeed",
    "actors.trainer.rank_checkpoint.load",
    "actors.trainer.rank.TrainerRank.optimizer_step",
    breaks="a run that goes on would have another learning rate",
)
def test_the_schedule_is_the_one_that_we_gave(engines: Engines, dtype: str, stage: int) -> None:
    engine = engines(dtype, stage)
    schedule = engine.lr_scheduler
    assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
    rates = [base * f(schedule.last_epoch) for base, f in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    assert engine.get_lr() == pytest.approx(rates)
    assert [group["lr"] for group in engine.optimizer.param_groups] == pytest.approx(rates)
