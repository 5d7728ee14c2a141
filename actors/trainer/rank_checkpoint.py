"""What a trainer rank saves in a checkpoint, and how it resumes from one.

deepspeed/state/       DeepSpeed's own files: weights, optimizer, schedule
random/rank_*.pt       random states of Python, NumPy and torch
ema/rank_*.safetensors the moving average, if it is the teacher
hf/, adapter/          the student for transformers, peft and vLLM
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.trainer import safe_loading
from actors.trainer.deepspeed_engine import on_host, weight_source
from actors.trainer.messages import RankSpec, Restore

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine

    from actors.trainer.checkpoint_writer import Writer
    from actors.trainer.following_teacher import Ema

TAG = "state"


def save(engine: DeepSpeedEngine, spec: RankSpec, folder: str, rank: int, ema: Ema | None, writer: Writer) -> None:
    """Copy a rank's part of checkpoint ``folder`` to host memory and hand it to the writer. Collective."""
    from actors.trainer.checkpoint_writer import size_of
    from actors.trainer.lora import AdapterSource, save_adapter

    lm, lora, first = engine.module.lm, spec.trainer.lora, rank == 0
    use_writer(engine, writer)
    engine.save_checkpoint(f"{folder}/deepspeed", tag=TAG, save_latest=False, exclude_frozen_parameters=lora is not None)
    save_random_state(folder, rank, writer)
    if ema is not None:
        ema.save(f"{folder}/ema", writer)
    if lora is not None:
        factors = on_host(AdapterSource(lm, dtype=None), keep=first)
        if first:
            path = f"{folder}/adapter"
            writer.add(path, size_of(factors), lambda: save_adapter(factors, lora, spec.model, path))
    if spec.merged_checkpoint:
        state = on_host(weight_source(lm, lora, next(lm.parameters()).dtype), keep=first)
        if first:
            save_student(lm, state, spec.model, f"{folder}/hf", writer)


def use_writer(engine: DeepSpeedEngine, writer: Writer) -> None:
    """Make DeepSpeed write its checkpoints through ``writer`` only."""
    from actors.trainer.checkpoint_writer import WriterEngine

    engine.checkpoint_engine = WriterEngine(writer)
    engine._copy_recovery_script = lambda path: None  # it would write scripts on the training thread


def make_universal(restore: Restore) -> None:
    """Convert DeepSpeed's shards to one file per parameter, before any rank loads them. Needs no process group."""
    import shutil

    from deepspeed.checkpoint.ds_to_universal import main as convert

    shutil.rmtree(restore.universal_folder, ignore_errors=True)
    options = SimpleNamespace(
        input_folder=f"{restore.folder}/deepspeed/{TAG}",
        output_folder=f"{restore.universal_folder}/{TAG}",
        num_extract_workers=1,  # with more, DeepSpeed starts processes, which would read whole pickles
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with safe_loading.weights_only(options.input_folder):
        convert(options)


def load(engine: DeepSpeedEngine, restore: Restore, rank: int, *, lora: bool) -> None:
    """Load weights, optimizer, schedule and (with as many ranks) random states from the checkpoint. Collective."""
    folder = restore.universal_folder if restore.universal else f"{restore.folder}/deepspeed"
    fused = _torchs_own(engine.optimizer).param_groups[0].get("fused")
    # With LoRA the files lack the frozen weights, which are the original student's.
    with safe_loading.weights_only(f"{folder}/{TAG}"):
        found, _ = engine.load_checkpoint(folder, tag=TAG, load_module_strict=not lora)
    assert found is not None, f"{folder} has no state"
    update_as_built(_torchs_own(engine.optimizer), fused)
    schedule = engine.lr_scheduler
    rates = [base * f(schedule.last_epoch) for base, f in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(engine.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate  # by this run's `steps`, which may be more than those of the run that wrote it
    if restore.same_shape:
        set_random_state(f"{restore.folder}/random/rank_{rank}.pt")


def _torchs_own(optimizer: Any) -> Any:
    """torch's optimizer, which may be wrapped in DeepSpeed's."""
    return getattr(optimizer, "optimizer", optimizer)


def update_as_built(optimizer: Any, fused: bool | None) -> None:
    """Restore an AdamW optimizer's own choice between fused and unfused updates, after loading a checkpoint.

    A checkpoint overwrites that choice, and its step counts are on the host. A fused update needs them on the device of the
    moments, an unfused one on the host.
    """
    import torch

    for group in optimizer.param_groups:
        group["fused"] = fused
    for state in optimizer.state.values():
        if "step" in state and "exp_avg" in state:
            device = state["exp_avg"].device if fused else torch.device("cpu")
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32).to(device)


def save_random_state(folder: str, rank: int, writer: Writer) -> None:
    import torch

    from actors.trainer.checkpoint_writer import host_copy, save_file

    kind, keys, *rest = np.random.get_state()
    numpy_state = [kind, torch.from_numpy(np.asarray(keys, np.int64)), *rest]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    state = {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state(), "cuda": cuda}
    copied, size = host_copy(state)
    path = f"{folder}/random/rank_{rank}.pt"
    writer.add(path, size, lambda: save_file(copied, path))


def set_random_state(path: str) -> None:
    import torch

    state = safe_loading.load(path)
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def save_student(lm: Any, state: Mapping[str, torch.Tensor], model: str, folder: str, writer: Writer) -> None:
    """Write ``hf/``: the full student, as transformers and vLLM load it."""
    from transformers import AutoTokenizer

    from actors.trainer.checkpoint_writer import size_of

    def write() -> None:
        lm.save_pretrained(folder, state_dict=dict(state), safe_serialization=True)
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)

    writer.add(folder, size_of(state), write)
