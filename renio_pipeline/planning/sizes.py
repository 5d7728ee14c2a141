"""A model's sizes from its configuration alone: parameters, widths, and the bytes of a cached token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from renio_pipeline.config import ConfigError

DENSE = ("llama", "mistral", "qwen2", "qwen3")  # model types whose parameters are counted with formulas


@dataclass(frozen=True, kw_only=True)
class Widths:
    """In elements."""

    layers: int
    hidden: int  # H
    vocab: int  # rows of the output head
    queries: int  # width of all query heads of a layer
    keys: int  # width of all key heads, and of all value heads
    key_heads: int
    mlp: int  # width of the MLP that a token passes through, over all experts that it is routed to


@dataclass(frozen=True, kw_only=True)
class ModelSizes(Widths):
    """Sizes in parameters."""

    name: str
    parameters: int
    matrices: int  # parameters in matrix products: all except an embedding that is not also the head
    passed: int  # parameters that a single token is multiplied with: only the experts that it is routed to

    @property
    def head(self) -> int:
        """The parameters of the output head."""
        return self.vocab * self.hidden

    def cache_bytes(self, element_bytes: float, tensor_parallel: int = 1) -> float:
        """The bytes of one token's keys and values on one of the GPUs that share the model. A head is never split."""
        heads = max(1.0, self.key_heads / tensor_parallel)
        return 2 * self.layers * heads * (self.keys / self.key_heads) * element_bytes

    def factors(self, targets: Sequence[str], rank: int) -> int:
        """The parameters of the LoRA factors of these modules. Only a layer's seven projections are counted."""
        shapes = {
            "q_proj": (self.hidden, self.queries), "k_proj": (self.hidden, self.keys), "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden), "gate_proj": (self.hidden, self.mlp), "up_proj": (self.hidden, self.mlp),
            "down_proj": (self.mlp, self.hidden),
        }  # fmt: skip
        return self.layers * rank * sum(sum(shapes[t]) for t in targets if t in shapes)


def sizes_of(name: str, config: Mapping[str, Any]) -> ModelSizes:
    """The sizes from a ``config.json``. Architectures outside DENSE are built on torch's meta device and counted.

    Raises:
        ConfigError: the configuration is not that of a causal language model known to transformers.
    """
    kind = config.get("model_type")
    text = config if kind in DENSE else _by_common_names(name, config)
    try:
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        layers, vocab = int(text["num_hidden_layers"]), int(text["vocab_size"])
        mlp = int(text["intermediate_size"] if kind in DENSE else _mlp(text, hidden))
    except KeyError as error:
        raise ConfigError(f"{name}: its config.json has no {error}; expected that of a causal language model") from None
    key_heads = _key_heads(text, heads)
    head = int(text.get("head_dim") or (128 if kind == "qwen3" else hidden // heads))
    experts = int(text.get("num_experts_per_tok") or 0)
    widths = Widths(
        layers=layers,
        hidden=hidden,
        vocab=vocab,
        queries=heads * head,
        keys=key_heads * head,
        key_heads=key_heads,
        mlp=experts * int(text.get("moe_intermediate_size") or mlp) if experts else mlp,
    )
    return ModelSizes(name=name, **asdict(widths), **(_dense(config, widths) if kind in DENSE else _on_meta(name, config)))


def _by_common_names(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the language model, with the names that most architectures have besides its own."""
    from transformers import AutoConfig

    try:
        made = AutoConfig.for_model(**config).get_text_config()
    except Exception as error:  # for an unknown model, transformers may raise any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{name}: transformers cannot build the model of its config.json: {reason}") from None
    common = {alias: getattr(made, alias, None) for alias in getattr(made, "attribute_map", {})}
    return {key: value for key, value in {**made.to_dict(), **common}.items() if value is not None}


def _mlp(text: Mapping[str, Any], hidden: int) -> int:
    """The width of the MLP, which is four times the hidden states' in older architectures that do not say it."""
    keys = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")
    return int(next((text[key] for key in keys if key in text), 4 * hidden))


def _key_heads(text: Mapping[str, Any], heads: int) -> int:
    if text.get("multi_query") and not text.get("new_decoder_architecture"):  # Falcon and GPTBigCode
        return 1
    return int(text.get("num_key_value_heads") or text.get("num_kv_heads") or heads)


def _dense(config: Mapping[str, Any], w: Widths) -> dict[str, int]:
    kind, tied = config["model_type"], bool(config.get("tie_word_embeddings", False))
    attention = w.hidden * (2 * w.queries + 2 * w.keys)
    if kind == "qwen2":
        attention += w.queries + 2 * w.keys  # its q, k and v always have biases
    elif config.get("attention_bias"):
        attention += w.queries + 2 * w.keys + w.hidden
    if kind == "qwen3":
        attention += 2 * (w.queries // int(config["num_attention_heads"]))  # the norms of a query head and of a key head
    biases = 2 * w.mlp + w.hidden if kind == "llama" and config.get("mlp_bias") else 0
    layer = attention + 3 * w.hidden * w.mlp + biases + 2 * w.hidden
    matrices = w.layers * layer + w.hidden + w.vocab * w.hidden
    return {"parameters": matrices + (0 if tied else w.vocab * w.hidden), "matrices": matrices, "passed": matrices}


def _on_meta(name: str, config: Mapping[str, Any]) -> dict[str, int]:
    """The parameter counts of the model as transformers builds it on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        made = AutoConfig.for_model(**config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(made)
    except Exception as error:  # for an unknown model, transformers may raise any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{name}: transformers cannot build the model of its config.json: {reason}") from None
    text = made.get_text_config()
    totals = (getattr(text, key, None) for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    experts = next((total for total in totals if total), None)
    share = text.num_experts_per_tok / experts if experts else 1.0
    embedding = model.get_input_embeddings().weight
    apart = embedding is not model.get_output_embeddings().weight
    counts = {path: p.numel() for path, p in model.named_parameters() if not (apart and p is embedding)}
    passed = sum(n * (share if ".experts." in path else 1.0) for path, n in counts.items())
    matrices = sum(counts.values())
    return {"parameters": matrices + (embedding.numel() if apart else 0), "matrices": matrices, "passed": round(passed)}
