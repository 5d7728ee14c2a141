"""vLLM's LoRA manager as ``actors.engines.vllm_lora`` loads adapters into it from memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import MagicMock

import pytest
import torch

from tests.contracts.reliance import assigned, parameters, relied_on


@relied_on(
    "vllm",
    "renio_pipeline.models.adapters.LORA_RANKS",
    breaks="an engine would be asked for a rank that vLLM has no buffers for",
)
def test_these_are_the_ranks_that_have_buffers() -> None:
    from vllm.config.lora import MaxLoRARanks

    from renio_pipeline.models.adapters import LORA_RANKS

    assert get_args(MaxLoRARanks) == LORA_RANKS


@relied_on(
    "vllm",
    "actors.engines.vllm_lora.load_adapter",
    "actors.trainer.lora.peft_name",
    breaks="factors would have other names or scales",
)
def test_factors_under_peft_s_names_become_those_of_the_engine_s_modules() -> None:
    from vllm.config.lora import LoRAConfig
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    from actors.trainer.lora import peft_name

    helper = PEFTHelper.from_dict({"r": 2, "lora_alpha": 8, "target_modules": ["up_proj"]})
    helper.validate_legal(LoRAConfig(max_lora_rank=8))
    with pytest.raises(ValueError, match="rank"):
        PEFTHelper.from_dict({"r": 9, "lora_alpha": 8, "target_modules": []}).validate_legal(LoRAConfig(max_lora_rank=8))
    module = "model.layers.0.mlp.up_proj"
    factors = {f"{module}.lora_A.default.weight": torch.ones(2, 4), f"{module}.lora_B.default.weight": torch.ones(3, 2)}
    adapter = LoRAModel.from_lora_tensors(
        1,
        {peft_name(name): tensor for name, tensor in factors.items()},
        helper,
        device="cpu",
        dtype=torch.float32,
        model_vocab_size=10,
        weights_mapper=None,
        skip_prefixes=None,
    )
    assert list(adapter.loras) == [module]
    weights = adapter.loras[module]
    assert weights.scaling == 4
    weights.optimize()
    assert weights.lora_b.eq(4).all()  # in place, so that what it is given must be a copy
    assert weights.lora_a is not None


@relied_on(
    "vllm",
    "actors.engines.vllm_lora.load_adapter",
    "actors.engines.vllm_lora._check",
    breaks="an adapter could not be put in the place of the one before, or its modules not be checked",
)
def test_the_manager_behind_the_runner_s_manager_has_what_we_call() -> None:
    """Read, but for the methods."""
    from vllm.lora.model_manager import LoRAModelManager, LRUCacheLoRAModelManager
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager, WorkerLoRAManager

    assert LRUCacheWorkerLoRAManager._manager_cls is LRUCacheLoRAModelManager
    assert {"self._adapter_manager", "self.lora_config", "self.vocab_size"} <= assigned(WorkerLoRAManager.__init__)
    assert "self._adapter_manager" in assigned(LRUCacheWorkerLoRAManager.create_lora_manager)
    assert {"self.model", "self.modules", "self.packed_modules"} <= assigned(LoRAModelManager.__init__)
    for method in ("remove_adapter", "add_adapter", "activate_adapter", "pin_adapter"):
        assert len(parameters(getattr(LRUCacheLoRAModelManager, method))) == 1


@relied_on(
    "vllm", "actors.engines.generator.Generator._request", breaks="vLLM would look for an adapter's files, and there are none"
)
def test_an_adapter_that_is_there_under_its_number_is_not_read_from_its_path() -> None:
    from vllm.lora.request import LoRARequest
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

    manager: Any = object.__new__(LRUCacheWorkerLoRAManager)
    manager._adapter_manager = MagicMock()
    manager._adapter_manager.list_adapters.return_value = {1: None}
    manager._load_adapter = MagicMock(side_effect=AssertionError("it was read"))
    assert manager.add_adapter(LoRARequest("student-0.3", 1, "memory")) is True
    manager._adapter_manager.activate_adapter.assert_called_once_with(1)


@relied_on(
    "vllm", "actors.engines.generator.Generator._request", breaks="a prefix that older weights cached would be found again"
)
def test_cached_prefixes_go_by_the_adapter_s_name() -> None:
    from vllm.lora.request import LoRARequest
    from vllm.v1.core.kv_cache_utils import _gen_lora_extra_hash_keys

    def keys(name: str) -> Any:
        request: Any = SimpleNamespace(lora_request=LoRARequest(name, 1, "memory"))
        return _gen_lora_extra_hash_keys(request)

    assert keys("student-0.1") == keys("student-0.1") != keys("student-0.2")


@relied_on(
    "vllm", "actors.engines.build.build_engine", breaks="LoRA engines on a CPU would be compiled, or would refuse to start"
)
def test_a_lora_engine_s_options_make_its_lora_configuration() -> None:
    from vllm import EngineArgs

    from tests.contracts.conftest import STUDENT

    found = (
        EngineArgs(
            model=STUDENT,
            dtype="float32",
            max_model_len=64,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=8,
            lora_target_modules=["up_proj"],
        )
        .create_engine_config()
        .lora_config
    )
    assert found is not None
    assert (found.max_loras, found.max_lora_rank, found.target_modules) == (1, 8, ["up_proj"])
    assert found.lora_dtype == torch.float32  # the model's
