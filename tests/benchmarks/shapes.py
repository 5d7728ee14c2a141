"""The shapes of work that are measured end to end, and what they are made of.

``tiny`` is the demo: its embedded models, on which Python and start-up costs rule. ``tail`` is a model of about 30 M parameters
with a vocabulary of 32 k, whose responses have a long tail: a geometric length, cut at LONGEST, of which the mean is a fifth.
Its weights are random, so the tail is made by construction: after any text the end token has the probability 5 / LONGEST.
``135m`` is the same with 30 layers and a vocabulary of 49 k; only the comparison with peers has it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renio_pipeline.config import RunConfig, load

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).parents[2]
NAMES = ("tiny", "tail")
LONGEST = 320  # tokens of a response
LETTERS = (24, 48)  # of a prompt, each a token
PROBLEMS = 1024
BATCH = 64
# A coordinate of the hidden states in which all inputs are alike and that no layer writes to: the end token reads it.
COMMON = 0
SIZES = {
    "tail": {
        "vocab_size": 2**15,
        "hidden_size": 384,
        "intermediate_size": 1152,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}

TAIL = {
    "batch_size": BATCH,
    "max_response_tokens": LONGEST,
    "task": "plain",
    "objective": {"type": "jsd", "beta": 0.5},
    # lr: training that leaves the lengths as they are.
    "trainer": {"dtype": "float32", "zero_stage": 0, "lr": 1e-6, "schedule": "constant", "micro_batch_tokens": 512},
    "generator": {"dtype": "float32"},
    "teacher": {"dtype": "float32", "type": "torch"},
    # Strictly on-policy the stages take turns for most of a step, so each may use both cores.
    "pools": {name: {"cpus": 0.5, "env": {"OMP_NUM_THREADS": "2"}} for name in ("generator", "teacher", "trainer")},
}


def config_of(name: str, folder: Path, steps: int, **more: Any) -> tuple[Path, RunConfig]:
    """The configuration file of a shape, and what it says. What it needs and ``folder`` does not have yet is made."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "tiny":
        base: dict[str, Any] = load(ROOT / "configs/demo.yaml").model_dump(mode="json", exclude_unset=True)
    else:
        base = TAIL | _make_tail(folder, SIZES[name])
    settings = base | {"name": f"bench-{name}", "steps": steps, "evaluate": {"problems": 0}} | more
    file = folder / f"{name}.json"  # JSON is YAML
    file.write_text(json.dumps(settings))
    return file, load(file)


def _make_tail(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    problems = folder / "problems.jsonl"
    if not problems.exists():
        rng = random.Random(0)
        texts = ("".join(rng.choices("abcdefghij ", k=rng.randint(*LETTERS))) for _ in range(PROBLEMS))
        problems.write_text("".join(json.dumps({"id": str(i), "problem": text}) + "\n" for i, text in enumerate(texts)))
    for seed, name in enumerate(("student", "teacher")):
        if not (folder / name / "config.json").exists():
            _save(folder / name, seed, size)
    teacher = TAIL["teacher"] | {"model": str(folder / "teacher")}  # type: ignore[operator]
    return {"student": str(folder / "student"), "teacher": teacher, "data": {"path": str(problems)}}


def _save(folder: Path, seed: int, size: dict[str, int]) -> None:
    import torch
    from transformers import Qwen3ForCausalLM

    tokenizer = _tokenizer(size["vocab_size"])
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(_qwen(tokenizer, size)).eval()
    _give_tail(model, tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _qwen(tokenizer: PreTrainedTokenizerFast, size: dict[str, int]) -> Qwen3Config:
    from transformers import Qwen3Config

    return Qwen3Config(
        **size,
        head_dim=64,
        max_position_embeddings=LETTERS[1] + LONGEST + 16,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def _tokenizer(entries: int) -> PreTrainedTokenizerFast:
    """The demo's, a token a byte, with further tokens that no text becomes: a response may have any of ``entries``."""
    from renio_pipeline.demo.tokenizer import make_tokenizer

    # In the vocabulary itself, as a real model has them: 32 k added tokens take seconds to load, everywhere.
    bytes_alone = len(make_tokenizer())
    tokenizer = make_tokenizer([f"<{i}>" for i in range(bytes_alone, entries)])
    tokenizer.model_max_length = LETTERS[1] + LONGEST + 16
    return tokenizer


def _give_tail(model: Qwen3ForCausalLM, end: int) -> None:
    """Make the end token's probability 5 / LONGEST on average, nearly the same after any text."""
    import torch

    with torch.no_grad():
        embedding = model.get_input_embeddings().weight  # the output head too
        embedding[:, COMMON] = 10 * embedding.std()  # so much that it still counts beside what the layers add
        embedding[end] = 0.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[COMMON] = 0.0
            layer.mlp.down_proj.weight[COMMON] = 0.0
        texts = torch.randint(end + 1, len(embedding), (8, 64), generator=torch.Generator().manual_seed(0))
        low, high = 0.0, 100.0
        states = model.model(texts).last_hidden_state[:, 8:].flatten(0, 1)
        others = (states @ embedding.T).index_fill_(1, torch.tensor([end]), -torch.inf).logsumexp(dim=1)
        for _ in range(40):
            middle = (low + high) / 2
            hazard = torch.sigmoid(states[:, COMMON] * middle - others).mean()
            low, high = (middle, high) if hazard < 5 / LONGEST else (low, middle)
        embedding[end, COMMON] = middle
