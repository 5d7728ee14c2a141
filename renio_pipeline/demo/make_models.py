"""Makes the two models of the demo: a teacher that has learned arithmetic, and a student with known bad habits.

The student is trained on solutions that stop early or slip in a step, so it errs in ways that the teacher does not. A student
that is merely undertrained errs everywhere, and then sample weights have nothing to distinguish.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from renio_pipeline.demo.tokenizer import MAX_TOKENS, make_tokenizer
from renio_pipeline.demo.training import Lesson, fit, lesson, threads
from renio_pipeline.tasks import Task
from renio_pipeline.tasks.arithmetic import Arithmetic, noisy_solution
from renio_pipeline.types import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model: its size, what it is taught, and for how long."""

    name: str
    hidden: int
    tied: bool  # whether the output head is the embedding
    early: float = 0.0  # share of the solutions that stop early
    slip: float = 0.0  # share that slip in one step
    layers: int = 3
    steps: int = 2000
    batch: int = 96
    peak_lr: float = 3e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Held-out accuracies of the saved weights, sampled at temperature 1."""

    teacher_accuracy: float
    student_accuracy: float
    seconds: float


# Different widths and head tyings, so that the demo exercises the general code paths.
TEACHER = Recipe(name="teacher", hidden=128, tied=False)
STUDENT = Recipe(name="student", hidden=96, tied=True, early=0.35, slip=0.3)


def make_demo_models(
    out: Path,
    *,
    seed: int = 0,
    recipes: tuple[Recipe, Recipe] = (TEACHER, STUDENT),
    progress: Callable[[str], None] = print,
    problems: int = 1024,
) -> Report:
    """Train and save ``out/teacher`` and ``out/student``: minutes on two cores; the same seed gives the same bytes."""
    started = time.monotonic()
    tokenizer, task = make_tokenizer(), Arithmetic(seed=seed)
    found = []
    for recipe in recipes:
        folder = out / recipe.name
        _train(recipe, tokenizer, task, seed, progress).to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        found.append(accuracy(saved, tokenizer, task.rows("held_out", problems), task, seed=seed))
        progress(f"{recipe.name}: accuracy {found[-1]:.3f}, after {time.monotonic() - started:.0f} s, in {folder}")
    return Report(teacher_accuracy=found[0], student_accuracy=found[1], seconds=time.monotonic() - started)


@torch.no_grad()
def accuracy(
    model: Any, tokenizer: Any, rows: list[Row], task: Task, *, temperature: float = 1.0, seed: int = 0, batch: int = 256
) -> float:
    """The share of ``rows`` answered correctly by one response each, sampled from the full distribution."""
    correct = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(rows), batch):
            asked = rows[start : start + batch]
            chats = [task.messages(row) for row in asked]
            inputs = tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
            )
            prompt = inputs["input_ids"].shape[1]
            tokens = model.generate(
                **inputs, max_new_tokens=MAX_TOKENS - prompt, do_sample=True, temperature=temperature, top_k=0, top_p=1.0
            )
            texts = tokenizer.batch_decode(tokens[:, prompt:], skip_special_tokens=True)
            correct += sum(task.verify(row, text) == "correct" for row, text in zip(asked, texts, strict=True))
    return correct / len(rows)


def _train(recipe: Recipe, tokenizer: Any, task: Arithmetic, seed: int, progress: Callable[[str], None]) -> Qwen3ForCausalLM:
    with threads(2), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(_config(recipe, tokenizer))
        lessons = _lessons(recipe, tokenizer, task, seed)
        fit(model, lessons, name=recipe.name, steps=recipe.steps, peak_lr=recipe.peak_lr, progress=progress)
    return model


def _config(recipe: Recipe, tokenizer: Any) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU attention supports
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=recipe.tied,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def _lessons(recipe: Recipe, tokenizer: Any, task: Arithmetic, seed: int) -> Iterator[list[Lesson]]:
    """One batch of lessons per step; no problem is repeated."""
    rng = random.Random(seed)
    rows = task.rows("train", recipe.steps * recipe.batch)
    for start in range(0, len(rows), recipe.batch):
        yield [
            lesson(tokenizer, task.messages(row), noisy_solution(row.problem, rng, early=recipe.early, slip=recipe.slip).text)
            for row in rows[start : start + recipe.batch]
        ]
