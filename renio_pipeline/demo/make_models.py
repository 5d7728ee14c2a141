"""Makes the two models of the demo: a teacher that has learnt arithmetic, and a student with known bad habits.

The student has seen solutions that stop early or slip in a step, so that it goes wrong in ways the teacher has not:
a student that is merely under-trained errs everywhere, and sample weights then have nothing to tell apart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from renio_pipeline.tasks import Task
from renio_pipeline.tasks.arithmetic import Arithmetic, noisy_solution
from renio_pipeline.types import Row

UNTAUGHT = -100  # the label that transformers' losses leave out
MAX_TOKENS = 128  # the models' context: no problem and solution take more than 50
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}:{{ message.content }}<eos>{%- else -%}{{ message.content }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}:{%- endif -%}"
)


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
class Lesson:
    """A text to learn, prompt and solution."""

    input_ids: list[int]  # [P+T]
    labels: list[int]  # [P+T] the same ids, or UNTAUGHT where no loss is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Accuracies sampled at temperature 1 on held-out problems, from the weights as saved."""

    teacher_accuracy: float
    student_accuracy: float
    seconds: float


# Different widths and head tyings, so that the demo goes through the general code paths.
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
    """The share of ``rows`` that one sampled response each answers correctly, sampling from the whole distribution."""
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


def make_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token a byte: any text survives the round trip, and a character of the task is one token.

    more: further tokens, which no text becomes.
    """
    names = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *more]
    tokenizer = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT_TEMPLATE,
    )


def _train(recipe: Recipe, tokenizer: Any, task: Arithmetic, seed: int, progress: Callable[[str], None]) -> Qwen3ForCausalLM:
    with threads(2), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(_config(recipe, tokenizer))
        lessons = _lessons(recipe, tokenizer, task, seed)
        fit(model, lessons, name=recipe.name, steps=recipe.steps, peak_lr=recipe.peak_lr, progress=progress)
    return model


def fit(
    model: Any, lessons: Iterator[list[Lesson]], *, name: str, steps: int, peak_lr: float, progress: Callable[[str], None]
) -> None:
    """Teach ``model`` one batch of lessons a step, on a one-cycle schedule; it is left in its mode of evaluation."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=steps, cycle_momentum=False)
    for step, batch in enumerate(islice(lessons, steps), start=1):
        input_ids = pad_sequence([torch.tensor(x.input_ids) for x in batch], True, model.config.pad_token_id)
        labels = pad_sequence([torch.tensor(x.labels) for x in batch], True, UNTAUGHT)
        loss = model(input_ids=input_ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0:
            progress(f"{name}: step {step}/{steps}, loss {loss.item():.4f}")
    model.eval()


def _config(recipe: Recipe, tokenizer: Any) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU attention takes
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=recipe.tied,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def _lessons(recipe: Recipe, tokenizer: Any, task: Arithmetic, seed: int) -> Iterator[list[Lesson]]:
    """A batch of lessons a step; no problem comes twice."""
    rng = random.Random(seed)
    rows = task.rows("train", recipe.steps * recipe.batch)
    for start in range(0, len(rows), recipe.batch):
        yield [
            lesson(tokenizer, task.messages(row), noisy_solution(row.problem, rng, early=recipe.early, slip=recipe.slip).text)
            for row in rows[start : start + recipe.batch]
        ]


def lesson(tokenizer: Any, messages: list[dict[str, str]], solution: str, untaught: Sequence[tuple[int, int]] = ()) -> Lesson:
    """A solution after its prompt, which carries no loss, and neither do the characters of ``solution`` in ``untaught``."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids = [*tokenizer.encode(solution), tokenizer.eos_token_id]
    labels = list(ids)
    for start, end in untaught:
        labels[start:end] = [UNTAUGHT] * (end - start)
    return Lesson(input_ids=[*prompt, *ids], labels=[UNTAUGHT] * len(prompt) + labels)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sums are split by thread: another count gives other bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
