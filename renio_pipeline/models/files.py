"""A model's sizes and tokenizer, without importing torch where possible: transformers' Auto classes import it.

For the most common models, the files contain everything that the driver needs. For any other, the Auto classes are used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.models.hub import reach
from renio_pipeline.models.kind import NoCausalModelError, check_kind, quantisation

# (model_type, tokenizer_class) pairs for which AutoTokenizer returns exactly that class.
KNOWN = {("qwen2", "Qwen2Tokenizer"), ("qwen3", "Qwen2Tokenizer"), ("qwen3", "TokenizersBackend")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of a causal language model, from its ``config.json``."""

    architecture: str
    vocab_rows: int  # rows of the output head
    context: int  # tokens
    hidden_size: int  # H
    unknown_scale: str | None = None  # a configuration key that scales the logits in a way this package does not support
    quantised: str | None = None  # how the weights are quantised, such as "gptq"


def sizes_of(name: str) -> Sizes:
    """Read a model's sizes.

    Args:
        name: a folder or a hub name.

    Raises:
        NoCausalModelError: the model does not continue text.
        Exception: whatever transformers raises for a model that it cannot read.
    """
    found = _json(name, "config.json")
    check_kind(found or {})
    quantised = quantisation(found or {})
    if found is None or found.get("model_type") not in {model for model, _ in KNOWN} or not found.keys() >= _COMPLETE:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(name).get_text_config()
        if config.is_encoder_decoder or not hasattr(config, "vocab_size"):
            raise NoCausalModelError(f"({config.model_type}) is not a causal language model")
        found = {key: getattr(config, key, None) for key in (*_COMPLETE, "model_type", *SCALES, "logits_scaling")}
    return Sizes(
        architecture=(found["architectures"] or [found["model_type"]])[0],
        vocab_rows=found["vocab_size"],
        context=found["max_position_embeddings"] or 2**31,
        hidden_size=found["hidden_size"],
        unknown_scale=unknown_scale(found),
        quantised=quantised,
    )


SCALES = ("lm_head_multiplier", "output_multiplier")  # logit factors of some models, such as Falcon H1


def unknown_scale(config: Mapping[str, Any]) -> str | None:
    """The configuration key that scales the logits in a way ``heads.logit_settings`` does not support, if there is one."""
    keys = [*SCALES, *(["logits_scaling"] if config.get("model_type") == "hyperclovax" else [])]  # Granite divides by it
    return next((key for key in keys if config.get(key) not in (None, 1)), None)


_COMPLETE = {"architectures", "vocab_size", "max_position_embeddings", "hidden_size"}


def tokenizer_of(name: str) -> Any:
    """The tokenizer that AutoTokenizer would return. Raises whatever transformers raises.

    Args:
        name: a folder or a hub name.
    """
    model, settings = _json(name, "config.json"), _json(name, "tokenizer_config.json")
    if model is None or settings is None or "auto_map" in settings:
        return _auto(name)
    kind = str(settings.get("tokenizer_class")).removesuffix("Fast")
    if (model.get("model_type"), kind) not in KNOWN:
        return _auto(name)
    import transformers

    return getattr(transformers, kind).from_pretrained(name)


def end_ids(name: str, tokenizer: Any) -> set[int]:
    """The tokens at which vLLM ends a response: the tokenizer's end token, and those of the model's generation settings."""
    settings = _json(name, "generation_config.json") or _json(name, "config.json") or {}
    given = settings.get("eos_token_id")
    return {int(i) for i in [*(given if isinstance(given, list) else [given]), tokenizer.eos_token_id] if i is not None}


def _auto(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name)


def _json(name: str, file: str) -> dict[str, Any] | None:
    """A JSON file of the model; None if it is missing or not an object: transformers then reports the fault best.

    Without ``config.json`` nothing else of a model on the hub can be read. That raises at once, because each further request
    to a hub that does not answer is repeated for half a minute.
    """
    needed = file == "config.json"
    path: str | None = str(Path(name) / file)
    if not Path(name).is_dir():
        from transformers.utils import cached_file

        if needed:
            reach(name, file)
        path = cached_file(
            name,
            file,
            _raise_exceptions_for_missing_entries=needed,
            _raise_exceptions_for_connection_errors=needed,
            _raise_exceptions_for_gated_repo=needed,
        )
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
