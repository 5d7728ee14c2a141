"""What kind of model a ``config.json`` describes: one that continues text, or another, which is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CAUSAL = ("ForCausalLM", "LMHeadModel")  # how transformers' classes of causal language models are called, but for a few
_SENSES = {"vision_config": "images", "audio_config": "audio", "speech_config": "audio"}
_OTHERS = {
    "ForSequenceClassification": "it classifies texts, or scores them as a reward model does",
    "ForTokenClassification": "it classifies tokens",
    "ForQuestionAnswering": "it marks answers within a text",
    "ForMultipleChoice": "it chooses among texts",
    "RewardModel": "it scores texts",
    "ForMaskedLM": "it fills in masked tokens",
    "Model": "it has no output head, as models that embed texts",
}


class NoCausalModelError(ValueError):
    """The model is not a causal language model. The message is written to follow the model's name."""


def check_kind(config: Mapping[str, Any]) -> None:
    """Look at a ``config.json`` before transformers makes anything of it.

    Raises:
        NoCausalModelError: the model needs code of its own, reads more than text, or does not continue text.
    """
    if "auto_map" in config and not _is_known(str(config.get("model_type"))):
        raise NoCausalModelError(
            f"({config.get('model_type')}) brings code of its own (auto_map), which is not run here; expected an architecture "
            "of transformers"
        )
    names = config.get("architectures") or [""]
    architecture = str(names[0])
    sense = next((sense for name, sense in _SENSES.items() if config.get(name)), None)
    if sense is not None:
        raise NoCausalModelError(
            f"({architecture or config.get('model_type')}) reads {sense} besides text, and its language part is not loaded "
            "apart; give a causal language model of text alone"
        )
    if not architecture or architecture.endswith(CAUSAL) or architecture in _causal():
        return
    why = next((f": {why}" for ending, why in _OTHERS.items() if architecture.endswith(ending)), "")
    raise NoCausalModelError(f"({architecture}) is not a causal language model{why}")


def quantisation(config: Mapping[str, Any]) -> str | None:
    """How the weights are quantised, such as "gptq"; None if they are not."""
    parts = (config, config.get("text_config") or {})
    found = next((part[key] for part in parts for key in ("quantization_config", "quantization") if part.get(key)), None)
    if found is None:
        return None
    named = found.get("quant_method") if isinstance(found, dict) else found
    return str(named or ("mlx" if "quantization" in config else "unknown method"))


def _is_known(model_type: str) -> bool:
    """Whether transformers has this architecture itself, whatever code the model brings."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def _causal() -> set[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return {str(name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
