"""What the demo's student learns from a teacher with another tokenizer, beside what it learns from its own.

The other teacher is trained here: the demo's teacher, whose tokens are single characters, with the embeddings of a vocabulary
of merged ones, taught the same lessons again. Both teach the same student by
``objective.type: sampled``, with the same seeds, and the other one by ``uld`` too.

python -m tests.benchmarks.other_tokenizer
"""

from __future__ import annotations

import argparse
import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from renio_pipeline.config import parse
from renio_pipeline.demo.make_models import TEACHER, _config, _lessons, accuracy
from renio_pipeline.demo.training import fit
from renio_pipeline.grading.grader import Grader
from renio_pipeline.in_process import in_process_stages
from renio_pipeline.models import info
from renio_pipeline.preflight import prepare
from renio_pipeline.study.runner import held_out, steps
from renio_pipeline.tasks.arithmetic import Arithmetic, noisy_solution

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}A{{ message.content }}</s>{%- else -%}Q{{ message.content }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}A{%- endif -%}"
)
ANOTHER = "another tokenizer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build"), help="the folder in which the other teachers are, or are put"
    )
    parser.add_argument("--lessons", type=int, default=2000, help="steps that the other teacher is taught")
    parser.add_argument("--signs", default="+-=;#", help="which signs are one token with the digit after them")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    torch.set_num_threads(1)
    other = args.out / f"other-tokenizer-{args.lessons}-{args.signs}"
    if not (other / "model.safetensors").exists():
        make_teacher(other, args.lessons, args.signs)
    arms: dict[str, dict[str, Any]] = {
        "its own": {"teacher": {"model": "embedded:teacher"}, "objective": {"type": "sampled"}},
        ANOTHER: {"teacher": {"model": str(other), "tokenizer": "own"}, "objective": {"type": "sampled"}},
        f"{ANOTHER}, uld": {"teacher": {"model": str(other), "tokenizer": "own"}, "objective": {"type": "uld", "k": 16}},
    }
    table = Table("seed", "teacher", "before", "after", "gain")
    gains: dict[str, list[float]] = {name: [] for name in arms}
    for seed in args.seeds:
        for name, sections in arms.items():
            before, after = asyncio.run(distilled(sections, seed, args.steps, args.lr))
            gains[name].append(after - before)
            table.add_row(str(seed), name, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    Console(width=100).print(table)
    for name in list(arms)[1:]:
        print(f"{name}: {sum(gains[name]) / sum(gains['its own']):.0%} of what the student gains from its own")


def merged_tokenizer(signs: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which a digit is one token with the sign before it, such as ``=8`` and ``;7``."""
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(f"[{re.escape(signs)}]?[0-9]"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    options = {"special_tokens": ["<blank>", "</s>"], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    texts = [row.solution or "" for row in Arithmetic(seed=3).rows("train", 2000)]
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=420, max_token_length=2, show_progress=False, **options))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<blank>", eos_token="</s>", padding_side="left", chat_template=TEMPLATE
    )


def make_teacher(folder: Path, lessons: int, signs: str) -> None:
    """Give the demo's teacher the merged vocabulary, teach it the demo's lessons again, and save it."""
    import random

    tokenizer, chars = merged_tokenizer(signs), AutoTokenizer.from_pretrained(info.resolve("embedded:teacher"))
    base = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:teacher"), dtype=torch.float32)
    model = Qwen3ForCausalLM(_config(TEACHER, tokenizer))
    weights = {k: v for k, v in base.state_dict().items() if "embed_tokens" not in k and "lm_head" not in k}
    model.load_state_dict(weights, strict=False)
    spelt = [tokenizer.decode([i]) if i > 1 else "" for i in range(len(tokenizer))]
    with torch.no_grad():
        for i, text in enumerate(spelt):
            ids = chars(text)["input_ids"] or [i]
            model.get_input_embeddings().weight[i] = base.get_input_embeddings().weight[ids].mean(0)
            model.get_output_embeddings().weight[i] = base.get_output_embeddings().weight[ids[0]]
    task = Arithmetic(seed=1)
    fit(
        model, _lessons(replace(TEACHER, steps=lessons), tokenizer, task, 1), name="teacher", steps=lessons, peak_lr=2e-3,
        progress=print,
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    right = accuracy(model, tokenizer, task.rows("held_out", 256), task)
    example = tokenizer.tokenize(noisy_solution("37+48-9+21", random.Random(0), early=0, slip=0).text)
    print(f"the other teacher: accuracy {right:.3f}, in {folder}; its tokens: {example}")


async def distilled(sections: dict[str, dict[str, Any]], seed: int, count: int, lr: float) -> tuple[float, float]:
    """Held-out accuracy before and after a run in this process."""
    config = parse({
        "steps": count, "batch_size": 64, "max_response_tokens": 48, "seed": seed, "student": "embedded:student",
        "data": {"problems": 4096}, "weighting": {"type": "renio", "threshold": 0.8, "clip": 2.5},
        "objective": sections["objective"], "generator": {"dtype": "float32"}, "evaluate": {"problems": 512},
        "teacher": {"dtype": "float32", "type": "torch", **sections["teacher"]},
        "trainer": {"dtype": "float32", "lr": lr, "max_grad_norm": 1.0, "micro_batch_tokens": 8192},
    })  # fmt: skip
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    async with Grader(prepared.task, prepared.tokenizer) as grader:
        before = await held_out(stages, config, prepared, grader)
        await steps(stages, config, prepared, grader)
        after = await held_out(stages, config, prepared, grader)
    return before["correct"], after["correct"]


if __name__ == "__main__":
    main()
