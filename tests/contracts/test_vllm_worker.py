"""vLLM's workers and model runners, on CPU and GPU, as ``actors.engines.vllm_extension`` reaches into them; and sleep mode."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from tests.contracts.reliance import assigned, expressions, parameters, relied_on

EXTENSION = "actors.engines.vllm_extension.RenioWorker"


@pytest.fixture
def worker(vllm_config: Any) -> Any:
    """A GPU worker without a device, whose weight-transfer engine and model runner remember what they are asked."""
    from vllm.v1.worker.gpu_worker import Worker

    found = object.__new__(Worker)
    found.__dict__ |= {
        "vllm_config": vllm_config,
        "weight_transfer_engine": MagicMock(),
        "model_runner": MagicMock(),
        "_weight_update_active": False,
        "_weight_update_is_draft": False,
        "rank": 0,
    }
    return found


@relied_on("vllm", EXTENSION, breaks="vLLM refuses an extension that has a name of its workers, and no engine would start")
def test_no_worker_has_a_name_of_the_extension() -> None:
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    from actors.engines.vllm_extension import RenioWorker

    names = {name for name in dir(RenioWorker) if not name.startswith("__")}
    assert {name for name in names if hasattr(Worker, name) or hasattr(CPUWorker, name)} == set()


@relied_on("vllm", EXTENSION, breaks="an attribute that the extension reads or sets is not there")
def test_workers_keep_what_the_extension_uses() -> None:
    """Read."""
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker
    from vllm.v1.worker.worker_base import WorkerBase

    assert issubclass(CPUWorker, Worker)
    assert {"self.weight_transfer_engine", "self._weight_update_active"} <= assigned(Worker.__init__)
    assert "self.vllm_config" in assigned(WorkerBase.__init__)
    assert "self.device" in assigned(Worker.init_device)
    assert "self.device" in assigned(CPUWorker.init_device)
    assert "self.model_runner" in assigned(Worker._init_workspace_and_model_runner)
    assert "self.model_runner" in assigned(CPUWorker.init_device)


@relied_on("vllm", EXTENSION, breaks="the extension would not find the model, or its LoRA manager")
def test_every_model_runner_has_its_model_and_its_lora_manager() -> None:
    """Read, but for ``get_model``."""
    from vllm.v1.worker.cpu.model_runner import CPUModelRunner as SecondCPURunner
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as SecondRunner
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.lora_model_runner_mixin import LoRAModelRunnerMixin

    for runner in (SecondRunner, SecondCPURunner, GPUModelRunner, CPUModelRunner):
        found: Any = object.__new__(runner)
        found.model = torch.nn.Linear(1, 1)
        assert found.get_model() is found.model
        assert issubclass(runner, LoRAModelRunnerMixin)
    assert "self.lora_manager" in assigned(LoRAModelRunnerMixin.load_lora_model)
    assert "self.load_lora_model" in expressions(SecondRunner.load_model)


@relied_on("vllm", f"{EXTENSION}.renio_start_update", breaks="an update that failed could not be begun anew")
def test_an_update_that_fails_is_closed_and_one_that_is_open_refuses_another(worker: Any) -> None:
    with pytest.raises(RuntimeError, match="must be called before"):
        worker.update_weights({})
    worker.start_weight_update()
    assert worker._weight_update_active is True
    with pytest.raises(RuntimeError, match="already"):
        worker.start_weight_update()
    worker.weight_transfer_engine.update_weights.side_effect = OSError
    with pytest.raises(OSError):  # noqa: PT011  it has no text
        worker.update_weights({})
    assert worker._weight_update_active is False
    worker._weight_update_active = True
    worker.finish_weight_update()
    worker.weight_transfer_engine.finish_weight_update.assert_called_once_with()
    assert worker._weight_update_active is False


@relied_on(
    "vllm",
    f"{EXTENSION}.renio_start_update",
    f"{EXTENSION}.renio_verify_loaded",
    "actors.engines.layerwise_reload.forget_update",
    "actors.engines.layerwise_reload.lacks_weights",
    breaks="an unfinished update would mix into the next one, or a layer without its new weights would go unnoticed",
)
def test_a_layer_counts_what_it_was_given_and_loads_when_that_is_all(vllm_config: Any) -> None:
    from vllm.model_executor.model_loader.reload import (
        finalize_layerwise_reload,
        initialize_layerwise_reload,
        record_metadata_for_reloading,
    )
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    storage = model[0].weight.data_ptr()
    record_metadata_for_reloading(model)
    assert get_layerwise_info(model[0]).can_load() is False
    initialize_layerwise_reload(model)
    model[0].weight.weight_loader(model[0].weight, torch.ones(3, 2))  # half of the layer
    info = get_layerwise_info(model[0])
    assert (info.can_load(), info.load_numel, info.load_numel_total, len(info.loaded_weights)) == (True, 6, 9, 1)
    info.loaded_weights, info.load_numel = [], 0
    finalize_layerwise_reload(model, vllm_config.model_config)  # it only logs what it lacks
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    initialize_layerwise_reload(model)
    for parameter in ("weight", "bias"):
        target = getattr(model[0], parameter)
        target.weight_loader(target, torch.ones(before[f"0.{parameter}"].shape))
    assert get_layerwise_info(model[0]).can_load() is False  # complete
    finalize_layerwise_reload(model, vllm_config.model_config)
    assert model[0].weight.eq(1).all()
    assert model[0].weight.data_ptr() == storage  # captured graphs read from there
    assert torch.equal(model[2].weight, before["2.weight"])


@relied_on(
    "vllm",
    "actors.engines.layerwise_reload.lacks_weights",
    "actors.engines.layerwise_reload.is_tied",
    "actors.engines.layerwise_reload.repack",
    breaks="whole updates would be refused, or a tied head would keep the packing of old weights",
)
def test_embeddings_heads_and_attention_can_be_told_apart() -> None:
    """Read, but for tying."""
    from vllm.model_executor.layers.attention.attention import Attention
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )
    from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

    assert issubclass(ParallelLMHead, VocabParallelEmbedding)
    assert "self.kv_cache_dtype" in assigned(Attention.__init__)
    assert list(parameters(UnquantizedEmbeddingMethod.process_weights_after_loading)) == ["layer"]
    embedding, head = SimpleNamespace(weight=torch.zeros(1)), SimpleNamespace(weight=None)
    assert UnquantizedEmbeddingMethod().tie_weights(head, embedding) is head  # type: ignore[arg-type]
    assert head.weight is embedding.weight
    assert {"self.lm_head", "self.logits_processor", "self.config"} <= assigned(Qwen3ForCausalLM.__init__)


@relied_on(
    "vllm",
    "actors.engines.layerwise_reload.repack",
    breaks="experts on a CPU would be packed twice, or read in another layout than they are in",
)
def test_experts_on_a_cpu_are_packed_when_they_are_first_loaded_and_not_by_an_update() -> None:
    """With kernels that note when they pack."""
    from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as module
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    from actors.engines.layerwise_reload import repack

    packed: list[str] = []

    class Experts(CPUUnquantizedExperts):
        def __init__(self) -> None:
            pass

        def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
            packed.append(type(self).__name__)

    method: Any = object.__new__(module.UnquantizedFusedMoEMethod)
    torch.nn.Module.__init__(method)
    layer = torch.nn.Module()
    layer.w13_weight, layer.w2_weight = (torch.nn.Parameter(torch.ones(1, 2, 2), requires_grad=False) for _ in range(2))
    layer.moe_config, layer.quant_method = None, method
    method.moe_kernel, method.unquantized_backend = None, module.UnquantizedMoeBackend.CPU

    def first(self: Any, layer: torch.nn.Module) -> None:
        self.moe_kernel = SimpleNamespace(fused_experts=Experts())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.UnquantizedFusedMoEMethod, "_init_moe_kernel", first)
        for count in (1, 1):  # loaded, and updated
            method._setup_kernel(layer, layer.w13_weight, layer.w2_weight)
            assert len(packed) == count
    repack(layer)
    assert len(packed) == 2


@relied_on(
    "vllm",
    "actors.engines.loop.EngineLoop.sleep",
    "actors.engines.vllm_replica.VllmReplica.sleep",
    breaks="level 1 would drop the weights, or keep them on the GPU",
)
def test_sleeping_at_level_one_offloads_the_weights_and_waking_restores_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import device_allocator
    from vllm.device_allocator.cumem import CuMemAllocator
    from vllm.device_allocator.sleep_mode_backend import CuMemBackend

    assert {"sleep", "wake_up", "use_memory_pool"} <= set(dir(CuMemAllocator))
    allocator = MagicMock(spec=CuMemAllocator)
    monkeypatch.setattr(device_allocator, "get_mem_allocator_instance", lambda: allocator)
    backend = CuMemBackend()
    backend.suspend(1)
    assert "weights" in allocator.sleep.call_args.kwargs["offload_tags"]
    assert "kv_cache" not in allocator.sleep.call_args.kwargs["offload_tags"]
    backend.resume(None)
    allocator.wake_up.assert_called_once_with(None)


@relied_on(
    "vllm",
    "actors.engines.vllm_replica.VllmReplica._frees_memory",
    breaks="on a CPU sleeping would fail, or begin to free memory",
)
def test_a_cpu_worker_sleeps_without_doing_anything() -> None:
    from vllm.v1.worker.cpu_worker import CPUWorker

    found: Any = object.__new__(CPUWorker)
    found.sleep(1)
    found.wake_up(None)
    assert found.__dict__ == {}
