"""Writes what ``renio prompts`` prints of the paper's presets to ``prompts.md``. Needs the project's environment, no network.

python docs/generate/prompts.py

The tokenizer stands for Qwen3's: its template has the same roles and the same thinking switch. It cuts text into bytes, so the
numbers of tokens, which say nothing of the real ones, are left out.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
WRITTEN = Path(__file__).with_name("prompts.md")
sys.path.insert(0, str(ROOT))

from renio_pipeline.cli.prompts import shown  # noqa: E402
from renio_pipeline.config import load  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MATHS = {"problem": "What is 3 + 4?", "solution": "Adding four to three gives 7.", "Answer": "7"}
CODE = {
    "problem": "Return the sum of a list of numbers.",
    "ground_truth_solution": "def total(numbers):\n    return sum(numbers)",
    "test_cases": json.dumps({"fn_name": "total", "inputs": [[[1, 2]]], "outputs": [3]}),
}
PRESETS = ("qwen3-1.7b-opd", "qwen3-1.7b-opsd", "qwen3-4b-opsd", "qwen3-8b-opsd")
REASONS = (
    "method.reason_first=true",
    "teacher.type=torch",
    r'prompts.teacher="Problem: {problem}\n\nSolution: {solution}\n\nYour analysis of it: {reasoning}\n\n{instruction}"',
)


def tokenizer() -> Any:
    """A tokenizer of bytes with Qwen3's special tokens, and a template in the style of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "extra_special_tokens": ["<|im_start|>"]}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=TEMPLATE, **special)


def prompts_of(preset: str, *overrides: str, code: bool = False) -> str:
    """What the command prints of one row."""
    files = [ROOT / f"configs/paper/{name}.yaml" for name in (preset, *(["code"] if code else []))]
    with tempfile.TemporaryDirectory() as folder, patch("renio_pipeline.models.info.read_tokenizer", lambda *_: tokenizer()):
        data = Path(folder, "rows.jsonl")
        data.write_text(json.dumps({"id": "1"} | (CODE if code else MATHS)) + "\n", encoding="utf-8")
        lines = list(shown(load(files, [f"data.path={data}", *overrides]), 1))
    return re.sub(r"^(--- .*): \d+ tokens$", r"\1", "\n".join(lines), flags=re.MULTILINE).rstrip()


def section() -> str:
    """The prompts of all presets: those of maths are alike, those of code too, and an analysis adds one."""
    parts = (
        ("All four presets, `renio prompts --config configs/paper/qwen3-1.7b-opsd.yaml`", prompts_of(PRESETS[1])),
        ("With `--config configs/paper/code.yaml`", prompts_of(PRESETS[1], code=True)),
        ("With `method.reason_first=true`, and a `prompts.teacher` that has its place", prompts_of(PRESETS[1], *REASONS)),
    )
    return "\n\n".join(f"{title}:\n\n~~~~text\n{text}\n~~~~" for title, text in parts)


if __name__ == "__main__":
    WRITTEN.write_text(section() + "\n", encoding="utf-8")
