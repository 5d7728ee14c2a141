"""What a model folder must have before anything loads it: a configuration, a tokenizer, and whole weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.models.lfs import refuse_pointer
from renio_pipeline.run_dir import checkpoint_files

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them
_TEXTS = (".json", ".jinja", ".model", ".tiktoken", ".txt")  # suffixes of configurations and tokenizers


def check_folder(folder: Path, key: str) -> None:
    """Raises ConfigError if this is no model folder, or a file of its configuration or tokenizer is not here.

    Args:
        key: the configuration key that names the folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{key}: model folder {str(folder)!r} {'is a file' if folder.exists() else 'does not exist'}")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{key}: {_instead(folder)}")
    for file in sorted(folder.iterdir()):
        if file.suffix in _TEXTS and file.is_file():
            refuse_pointer(file, key)


def _instead(folder: Path) -> str:
    """What a folder without a ``config.json`` is, and which one to give."""
    if (folder / "checkpoints").is_dir():
        found = checkpoint_files.newest(folder / "checkpoints")
        if found is None:
            return f"{str(folder)!r} is a run's folder, not a model's, and has no complete checkpoint; expected a model folder"
        what, within = f"{str(folder)!r} is a run's folder, not a model's; its newest checkpoint", found[0]
    else:
        what, within = f"{str(folder)!r} is a checkpoint, not a model; it", folder
    if (within / "hf" / "config.json").is_file():
        return f"{what} has the model in {within / 'hf'}: give that folder"
    if any((place / "adapter_config.json").is_file() for place in (within, within / "adapter")):
        where = what if within != folder or (within / "adapter").is_dir() else f"{str(folder)!r}"
        return (
            f"{where} has a LoRA adapter but no whole model; train with checkpoint.merged=true, which writes one, or merge it "
            "with peft (merge_and_unload) and give the merged folder"
        )
    if any(folder.glob("*.gguf")):
        return f"{str(folder)!r} has a GGUF file; expected a Hugging Face model folder, with config.json and safetensors"
    return f"{str(folder)!r} has no config.json: expected a Hugging Face model folder"


def check_weights(folder: Path, key: str) -> None:
    """Raises ConfigError if weights are missing, cut short, or Git LFS pointers. Reads no more than the files' headers."""
    for file in _weight_files(folder, key):
        if not file.is_file():
            raise ConfigError(f"{key}: {folder} lacks {file.name}, which its index lists; download it again")
        refuse_pointer(file, key)
        if file.suffix == ".safetensors":
            _check_whole(file, key)


def is_pickled(folder: Path) -> bool:
    """Whether the weights are in ``pytorch_model.bin`` alone, of which no single tensor can be read."""
    safe, pickled = (any((folder / f"{name}{more}").is_file() for more in ("", ".index.json")) for name in WEIGHTS)
    return pickled and not safe


def _weight_files(folder: Path, key: str) -> Iterator[Path]:
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            yield folder / name
            return
        if index.is_file():
            try:
                listed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ConfigError(f"{key}: {index} cannot be read: {type(error).__name__}: {error}") from None
            yield from (folder / str(file) for file in listed)
            return
    there = ", ".join(sorted(file.name for file in folder.iterdir() if file.is_file()))
    raise ConfigError(
        f"{key}: {folder} has no weights: neither {' nor '.join(WEIGHTS)}, nor an index of several such files; it has {there}"
    )


def _check_whole(file: Path, key: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size
        raise ConfigError(f"{key}: {file} ({size} bytes) is damaged or not whole ({error}); download it again") from None
