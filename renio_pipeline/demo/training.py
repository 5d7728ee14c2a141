"""Supervised training of small models on prompts and solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

UNTAUGHT = -100  # the label that transformers' losses ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A training text: prompt and solution."""

    input_ids: list[int]  # [P+T]
    labels: list[int]  # [P+T] the same ids, or UNTAUGHT where there is no loss


def lesson(tokenizer: Any, messages: list[dict[str, str]], solution: str, untaught: Sequence[tuple[int, int]] = ()) -> Lesson:
    """A solution after its prompt. The prompt carries no loss, nor do the spans of ``solution`` that ``untaught`` lists."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids = [*tokenizer.encode(solution), tokenizer.eos_token_id]
    labels = list(ids)
    for start, end in untaught:
        labels[start:end] = [UNTAUGHT] * (end - start)
    return Lesson(input_ids=[*prompt, *ids], labels=[UNTAUGHT] * len(prompt) + labels)


def fit(
    model: Any, lessons: Iterator[list[Lesson]], *, name: str, steps: int, peak_lr: float, progress: Callable[[str], None]
) -> None:
    """Train ``model`` on one batch of lessons per step, with a one-cycle schedule. The model is left in evaluation mode."""
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


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use this many torch threads in the block: sums are split by thread, so another count gives other bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
