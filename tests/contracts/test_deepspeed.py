"""DeepSpeed's options, signatures, deadlines and checkpoints."""

from __future__ import annotations

import ast
import inspect
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contracts.reliance import assigned, expressions, parameters, relied_on

BUILD = "actors.trainer.deepspeed_engine.build"


@relied_on(
    "deepspeed",
    BUILD,
    breaks="ranks that wait in a weight sync would abort at another time than faults.transfer_seconds allows for",
)
def test_collectives_have_ten_minutes_unless_the_rendezvous_is_told_otherwise() -> None:
    import os

    import deepspeed
    from deepspeed.constants import default_pg_timeout

    assert "DEEPSPEED_TIMEOUT" not in os.environ  # it is read when DeepSpeed is imported
    assert default_pg_timeout == timedelta(minutes=10)
    found = inspect.signature(deepspeed.init_distributed).parameters
    assert found["timeout"].default == timedelta(minutes=10)
    assert next(iter(found)) == "dist_backend"
    assert "auto_mpi_discovery" in found


@relied_on("deepspeed", BUILD, breaks="DeepSpeed would compile an all-reduce, which needs a C++ compiler and a minute")
def test_no_operator_is_compiled_where_none_is_compatible(monkeypatch: pytest.MonkeyPatch) -> None:
    import deepspeed
    from deepspeed.comm.torch import build_shm_op

    monkeypatch.setattr(deepspeed.ops, "__compatible_ops__", {}, raising=False)
    assert build_shm_op() is None


@relied_on(
    "deepspeed", "actors.trainer.deepspeed_engine.engine_config", breaks="an option of ours would have no effect, or be refused"
)
def test_our_options_mean_what_we_take_them_for() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    from actors.trainer.deepspeed_engine import engine_config
    from renio_pipeline.config.schema import Trainer

    trainer = Trainer(dtype="bfloat16", zero_stage=2, max_grad_norm=0.5, deepspeed={"wall_clock_breakdown": True})
    found = DeepSpeedConfig(engine_config(trainer, 1, universal=True))
    assert found.zero_config.stage == 2
    assert found.bfloat16_config.enabled is True
    assert found.gradient_clipping == 0.5
    assert found.zero_allow_untested_optimizer is True
    assert found.zero_force_ds_cpu_optimizer is False
    assert found.load_universal_checkpoint is True
    assert found.wall_clock_breakdown is True
    assert (found.train_micro_batch_size_per_gpu, found.gradient_accumulation_steps, found.train_batch_size) == (1, 1, 1)


@relied_on(
    "deepspeed",
    "renio_pipeline.config.schema.models.OWNED_DEEPSPEED_KEYS",
    breaks="a key that we own has another name, and passes",
)
def test_the_keys_that_we_own_are_deepspeed_s() -> None:
    from deepspeed.runtime import constants, precision_config
    from deepspeed.runtime.zero import config

    from renio_pipeline.config.schema import OWNED_DEEPSPEED_KEYS

    names = {
        value for module in (constants, precision_config, config) for value in vars(module).values() if isinstance(value, str)
    }
    assert {key.partition(".")[0] for key in OWNED_DEEPSPEED_KEYS} - names == set()
    assert "stage" in config.DeepSpeedZeroConfig.model_fields


@relied_on("deepspeed", "renio_pipeline.planning.rank_memory.BUCKET", breaks="the planner counts buckets of another size")
def test_buckets_of_reductions_have_this_size() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    from renio_pipeline.planning.rank_memory import BUCKET

    assert DeepSpeedZeroConfig().reduce_bucket_size == BUCKET


@relied_on(
    "deepspeed",
    "renio_pipeline.planning.rank_memory.model_states",
    breaks="the optimizer's step takes other memory than an fp32 copy of the partition's gradients",
)
def test_the_step_makes_an_fp32_copy_of_the_gradients_of_its_partition() -> None:
    """Read."""
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    copied = "flat_grad_partition.to(self.single_partition_of_fp32_groups[i].dtype)"
    assert copied in expressions(DeepSpeedZeroOptimizer.step)
    assert "self.single_partition_of_fp32_groups[i].grad" in assigned(DeepSpeedZeroOptimizer.step)


@relied_on(
    "deepspeed",
    "actors.trainer.rank.TrainerRank",
    "actors.trainer.deepspeed_engine.optimizer_step",
    "actors.trainer.rank_checkpoint.load",
    breaks="a call would raise TypeError, or scale the loss otherwise",
)
def test_the_methods_of_the_engine_take_what_we_give_them() -> None:
    from deepspeed import DeepSpeedEngine

    (backward,) = (cell.cell_contents for cell in DeepSpeedEngine.backward.__closure__)  # its decorator hides the signature
    assert parameters(backward)["scale_wrt_gas"] is True
    assert list(parameters(DeepSpeedEngine.set_gradient_accumulation_boundary)) == ["is_boundary"]
    assert parameters(DeepSpeedEngine.get_global_grad_norm) == {}
    saving = parameters(DeepSpeedEngine.save_checkpoint)
    assert {"save_dir", "tag", "save_latest", "exclude_frozen_parameters"} <= saving.keys()
    assert parameters(DeepSpeedEngine.load_checkpoint)["load_module_strict"] is True
    assert "save_latest" in expressions(DeepSpeedEngine.save_checkpoint)


@relied_on(
    "deepspeed",
    "actors.trainer.rank_checkpoint.use_writer",
    "actors.trainer.checkpoint_writer.WriterEngine",
    breaks="DeepSpeed would write a checkpoint past the writer, on the training thread",
)
def test_all_files_of_a_checkpoint_go_through_its_engine() -> None:
    """Read: no method that saves calls ``torch.save`` itself."""
    from deepspeed import DeepSpeedEngine
    from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine

    from actors.trainer.checkpoint_writer import WriterEngine

    assert CheckpointEngine.__abstractmethods__ == {"create", "save", "load", "commit"}
    assert WriterEngine.__abstractmethods__ == frozenset()
    for method in ("create", "makedirs", "save", "load", "commit"):
        assert list(parameters(getattr(WriterEngine, method))) == list(parameters(getattr(CheckpointEngine, method)))
    engine: Any = CheckpointEngine
    assert engine.is_decoupled(None) is False  # else files are waited for elsewhere
    assert list(parameters(DeepSpeedEngine._copy_recovery_script)) == ["save_path"]
    for save in (DeepSpeedEngine._save_checkpoint, DeepSpeedEngine._save_zero_checkpoint, DeepSpeedEngine.save_checkpoint):
        assert "torch.save" not in expressions(save)
    assert "self._copy_recovery_script" in expressions(DeepSpeedEngine._save_zero_checkpoint)


@relied_on(
    "deepspeed",
    "actors.trainer.safe_loading._deepspeed_classes",
    breaks="a checkpoint of ours could not be read without pickle",
)
def test_the_classes_in_checkpoints_are_where_we_look_for_them() -> None:
    from actors.trainer.safe_loading import _deepspeed_classes

    names = {f"{c.__module__}.{c.__name__}" for c in _deepspeed_classes()}
    assert names == {
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }


@relied_on(
    "deepspeed",
    "actors.trainer.rank_checkpoint.make_universal",
    breaks="a checkpoint could not be made readable by another number of ranks",
)
def test_the_conversion_to_universal_checkpoints_asks_for_no_more_than_we_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read: every ``args.NAME`` of the module."""
    from deepspeed.checkpoint import ds_to_universal

    from actors.trainer.messages import Restore
    from actors.trainer.rank_checkpoint import make_universal

    given: list[SimpleNamespace] = []
    monkeypatch.setattr(ds_to_universal, "main", given.append)
    make_universal(Restore(folder="/nowhere/step_1", same_shape=False, universal=True))
    tree = ast.parse(Path(inspect.getfile(ds_to_universal)).read_text())
    asked = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
    }
    assert asked == vars(given[0]).keys()


@relied_on("transformers", BUILD, breaks="the model would be loaded whole on every rank, not in parts")
def test_the_configuration_of_zero_3_is_held_weakly_and_found_by_from_pretrained() -> None:
    from transformers import PreTrainedModel
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    assert is_deepspeed_zero3_enabled() is False
    held = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    assert is_deepspeed_zero3_enabled() is True
    del held
    assert is_deepspeed_zero3_enabled() is False
    assert "deepspeed.zero.Init(config_dict_or_path=deepspeed_config())" in expressions(PreTrainedModel.get_init_context)
