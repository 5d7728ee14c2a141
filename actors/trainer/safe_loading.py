"""Reads torch's files of a checkpoint as data: tensors and a few of DeepSpeed's classes, no code, no more than is on the disk.

A run's directory may lie where others can write. A pickle runs whatever code it names, and DeepSpeed's own conversion of
checkpoints loads whole pickles; a compressed archive unpacks to any size.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Names of pickled files end in it, whether torch, DeepSpeed or its conversion wrote them.
_SUFFIX = ".pt"
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch reads it at every load, and it prevails over the caller's argument


class UnsafeFileError(RuntimeError):
    """A file of a checkpoint holds what no run writes."""


def load(path: str | Path, map_location: Any = None) -> Any:
    """torch.load of a file that a run's trainer wrote.

    Raises:
        UnsafeFileError: the file holds objects of other classes, or unpacks to more than its size.
    """
    import torch

    check_size(Path(path))
    with torch.serialization.safe_globals(_deepspeed_classes()):
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            raise UnsafeFileError(_refusal(path, error)) from None


@contextmanager
def weights_only(folder: str | Path) -> Iterator[None]:
    """Let every torch.load in this process behave like ``load``, whatever its caller asks for, on the files below ``folder``.

    For DeepSpeed's own code, which asks torch for whole pickles. Not for concurrent use.

    Raises:
        UnsafeFileError: as ``load``.
    """
    import torch

    for path in Path(folder).rglob(f"*{_SUFFIX}"):
        check_size(path)
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_deepspeed_classes()):
            yield
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(_refusal(folder, error)) from None
    finally:
        os.environ.pop(_FORCE) if before is None else os.environ.update({_FORCE: before})


def check_size(path: Path) -> None:
    """Refuse an archive whose records are compressed, or together larger than the file. torch writes them as they are.

    Raises:
        UnsafeFileError: names the file.
    """
    if not zipfile.is_zipfile(path):
        return  # torch's older format, whose tensors lie in the file one by one
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    unpacked = sum(record.file_size for record in records)
    if unpacked > path.stat().st_size or any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise UnsafeFileError(
            f"{path} would unpack to {unpacked} bytes from {path.stat().st_size}, and a trainer writes nothing that is packed; "
            "resume from another checkpoint"
        )


def _refusal(where: str | Path, error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "nsupported" in line), "")
    return (
        f"{where} holds more than tensors, which no trainer writes, and was not read ({reason[:200]}); resume from another "
        "checkpoint"
    )


def _deepspeed_classes() -> list[Any]:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
