"""What is undocumented, or recent, in torch."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from tests.contracts.reliance import expressions, parameters, relied_on


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
@relied_on(
    "torch",
    "actors.trainer.deepspeed_engine.build",
    breaks="the optimizer could not be made with this option, or make other steps",
)
def test_every_implementation_of_adamw_runs_on_a_cpu_and_makes_the_same_step(options: dict[str, bool]) -> None:
    parameter = torch.nn.Parameter(torch.ones(5))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0, **options)
    parameter.grad = torch.full((5,), 3.0)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((5,), 0.9))
    assert {"exp_avg", "exp_avg_sq"} <= optimizer.state[parameter].keys()


@relied_on(
    "torch",
    "renio_pipeline.planning.rank_memory.model_states",
    "actors.trainer.deepspeed_engine.build",
    breaks="the optimizer's step takes other memory on a GPU than is planned for",
)
def test_on_a_gpu_adamw_is_foreach_unless_it_is_told_to_be_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, but for the choice: foreach makes the square roots of all second moments at once, fused makes none."""
    from torch.optim import adam, optimizer

    class OnGpu:
        device = torch.device("cuda")

    assert torch.nn.Parameter in optimizer._foreach_supported_types
    monkeypatch.setattr(optimizer, "_foreach_supported_types", [OnGpu, torch.nn.Parameter])
    choose = optimizer._default_to_fused_or_foreach
    assert choose([OnGpu()], differentiable=False, use_fused=False) == (False, True)  # type: ignore[list-item]
    cpu = torch.nn.Parameter(torch.ones(1))
    assert choose([cpu], differentiable=False, use_fused=False) == (False, False)
    assert "_default_to_fused_or_foreach(params, differentiable, use_fused=False)" in expressions(adam.adam)
    assert "torch._foreach_sqrt(device_exp_avg_sqs)" in expressions(adam._multi_tensor_adam)
    assert not any("sqrt" in text for text in expressions(adam._fused_adam))


@relied_on(
    "torch",
    "actors.trainer.offload.HostState",
    breaks="emptying a storage would not free it, or views of it would not come back",
)
def test_a_storage_can_be_emptied_and_filled_again_under_its_views() -> None:
    tensor = torch.arange(6.0)
    view = tensor[2:4]
    storage = tensor.untyped_storage()
    assert storage.resizable()
    assert storage._cdata == view.untyped_storage()._cdata  # the same storage has the same key, whatever its address
    storage.resize_(0)
    assert storage.nbytes() == 0
    assert storage._cdata == view.untyped_storage()._cdata
    storage.resize_(24)
    torch.empty(0, dtype=torch.uint8).set_(storage).copy_(torch.arange(6.0).view(torch.uint8))
    assert view.tolist() == [2, 3]


@relied_on(
    "torch", "actors.trainer.offload.HostState.offload", breaks="what came out of a checkpoint's file could not leave the GPU"
)
def test_storages_that_are_files_cannot_be_emptied(tmp_path: Path) -> None:
    torch.save(torch.ones(4), tmp_path / "file.pt")
    mapped = torch.load(tmp_path / "file.pt", mmap=True, weights_only=True)
    assert not mapped.untyped_storage().resizable()
    assert mapped.clone().untyped_storage().resizable()


@relied_on(
    "torch",
    "actors.trainer.checkpoint_writer.WriterEngine.load",
    breaks="checkpoints could not be read without unpickling anything",
)
def test_only_classes_that_are_named_safe_are_unpickled(tmp_path: Path) -> None:
    torch.save({"path": MARK}, tmp_path / "file.pt")
    with pytest.raises(pickle.UnpicklingError, match="Mark"):
        torch.load(tmp_path / "file.pt", weights_only=True)
    with torch.serialization.safe_globals([Mark]):
        assert isinstance(torch.load(tmp_path / "file.pt", weights_only=True)["path"], Mark)


@relied_on(
    "torch",
    "actors.engines.vllm_extension._join",
    "actors.weight_sync.native_sender.NativeSender.send",
    breaks="a device could not be waited for",
)
def test_the_accelerator_has_these_functions() -> None:
    for name in ("is_available", "synchronize", "set_device_index", "current_device_index"):
        assert callable(getattr(torch.accelerator, name))
    assert torch.accelerator.is_available() == torch.cuda.is_available()


@relied_on(
    "torch",
    "renio_pipeline.models.packed_attention._by_kernel",
    breaks="packed attention would leave torch's variable-length kernel",
)
def test_the_variable_length_kernel_takes_what_we_give_it() -> None:
    from torch.nn.attention.varlen import varlen_attn

    found = parameters(varlen_attn)
    assert list(found)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert (found["scale"], found["window_size"], found["enable_gqa"]) == (None, (-1, -1), False)


@relied_on("torch", "actors.trainer.deepspeed_engine.optimizer_step", breaks="the norm of ZeRO 0 in fp32 would be another")
def test_the_total_norm_of_gradients_is_euclidean_and_shows_nan() -> None:
    assert float(torch.nn.utils.get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])])) == 5.0
    assert torch.isnan(torch.nn.utils.get_total_norm([torch.tensor([float("nan")])]))


@relied_on("torch", "tests.ray.gloo_communicator.GlooCommunicator", breaks="native transfers could not be tested without GPUs")
def test_a_gloo_group_can_be_made_from_a_store() -> None:
    import torch.distributed as dist
    from torch.distributed import PrefixStore, ProcessGroupGloo

    store = PrefixStore("gloo", dist.HashStore())
    assert store.add("members", 1) == 1
    for name in ("broadcast", "barrier"):
        assert callable(getattr(ProcessGroupGloo, name))


class Mark:
    """Of no class that torch knows."""


MARK = Mark()
