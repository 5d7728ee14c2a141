"""LoRA adapters of teachers: which can be served, and how they are applied. Folders as peft writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.models.lfs import refuse_pointer

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM has buffers; another rank uses the next larger
_HEADS = ("lm_head", "embed_tokens", "wte", "embed_out")
# What peft knows and vLLM, or the output head that is read from the model's own files, does not.
_REFUSED = {
    "use_dora": "DoRA's magnitudes", "modules_to_save": "whole modules", "rank_pattern": "ranks of their own",
    "alpha_pattern": "scales of their own", "layers_to_transform": "some of the layers",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that both engines can apply."""

    folder: str
    rank: int
    targets: tuple[str, ...]  # names of the modules that it changes


def read_adapter(folder: str, key: str) -> Adapter:
    """Look at an adapter's configuration, and that its weights are there.

    Args:
        key: the configuration key that names the folder.

    Raises:
        ConfigError: it is no LoRA adapter, or one that cannot be served.
    """
    place = Path(folder)
    settings = _settings(place, key)
    if settings.get("peft_type") != "LORA":
        raise ConfigError(f"{key}: {folder!r} is a {settings.get('peft_type')} adapter; only LoRA can be served")
    for name, what in _REFUSED.items():
        if settings.get(name):
            raise ConfigError(
                f"{key}: the adapter {folder!r} has {what} ({name}), which cannot be served; merge it into its model"
            )
    if settings.get("bias", "none") != "none":
        raise ConfigError(f"{key}: the adapter {folder!r} trains biases, which cannot be served; merge it into its model")
    rank = settings.get("r")
    if not isinstance(rank, int) or not 0 < rank <= LORA_RANKS[-1]:
        raise ConfigError(f"{key}: the adapter {folder!r} has rank {rank}; allowed: 1 to {LORA_RANKS[-1]}")
    weights = place / "adapter_model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"{key}: {folder!r} has no adapter_model.safetensors")
    refuse_pointer(weights, key)
    targets = _targets(weights, key)
    if heads := [name for name in targets if name in _HEADS]:
        raise ConfigError(f"{key}: the adapter {folder!r} changes {heads[0]}, which cannot be served; merge it into its model")
    return Adapter(folder=str(place.absolute()), rank=rank, targets=targets)


def _targets(weights: Path, key: str) -> tuple[str, ...]:
    """The names of the modules that have factors. ``target_modules`` may be a pattern, which only the model resolves."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{key}: {weights} cannot be read: {error}") from None
    whole = [name for name in names if ".lora_A." not in name and ".lora_B." not in name]
    if whole or not names:
        what = f"a whole tensor, {whole[0]}" if whole else "nothing"
        raise ConfigError(f"{key}: {weights} holds {what}, and not only LoRA factors; merge the adapter into its model")
    return tuple(sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in names}))


def buffer_rank(rank: int) -> int:
    """The smallest rank of ``LORA_RANKS`` that holds an adapter of this rank."""
    return min(r for r in LORA_RANKS if r >= rank)


def merged(model: Any, folder: str) -> Any:
    """The model with an adapter added to its weights, in their data type."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).merge_and_unload()


def _settings(place: Path, key: str) -> dict[str, Any]:
    if not place.is_dir():
        raise ConfigError(f"{key}: there is no folder {str(place)!r}")
    try:
        found = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        within = place / "adapter"
        hint = f"; did you mean {str(within)!r}?" if (within / "adapter_config.json").is_file() else ""
        raise ConfigError(f"{key}: {str(place)!r} has no adapter_config.json{hint}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {place}/adapter_config.json cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}
