"""The study's own models: the embedded ones, trained further. They are made once, deterministically, in the study's folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.models import info
from renio_pipeline.study.marks import REPAIR

PREFIX = "study:"
BATCH, PEAK_LR = 96, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Further:
    """The recipe of one of these models."""

    start: str  # the model that it starts from
    steps: int
    repair: float = 0.0  # teachers: the share of steps that slip, and are marked and repeated
    shown: float = 0.0  # students: the share of lessons that show the solution first
    early: float = 0.0  # students: the share of the other lessons that stop early and guess
    slip: float = 0.0  # students: the share of the other lessons that slip

    def identity(self) -> dict[str, Any]:
        """Everything that determines the model's bytes."""
        mark = {"mark": REPAIR} if self.repair else {}
        return {**asdict(self), "batch": BATCH, "peak_lr": PEAK_LR, "seed": 0, **mark}


RECIPES = {
    "half-repairing": Further(start="embedded:teacher", steps=400, repair=0.25),
    "repairing": Further(start="embedded:teacher", steps=1200, repair=0.25),
    "shown-student": Further(start="embedded:student", steps=1000, shown=0.5, early=0.35, slip=0.3),
}


def ready(name: str, folder: Path, note: Callable[[str], None]) -> str:
    """The folder of a model that a study names. The model is made first if it does not exist.

    Raises:
        ConfigError: ``study:`` with a name that has no recipe.
    """
    if not name.startswith(PREFIX):
        return name
    own = name.removeprefix(PREFIX)
    if own not in RECIPES:
        raise ConfigError(f"{name!r}: the study has no such model; allowed: {', '.join(PREFIX + known for known in RECIPES)}")
    path, recipe = folder / own, RECIPES[own]
    made = path / "recipe.json"
    if not made.is_file() or json.loads(made.read_text(encoding="utf-8")) != recipe.identity():
        note(f"{name}: training {recipe.start} for {recipe.steps} further steps")
        _make(own, recipe, path, note)
    return str(path)


def _make(name: str, recipe: Further, path: Path, note: Callable[[str], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from renio_pipeline.demo.training import fit, threads
    from renio_pipeline.tasks.arithmetic import Arithmetic

    start = info.resolve(recipe.start)
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    with threads(1):
        fit(
            model,
            _lessons(recipe, tokenizer, Arithmetic(seed=1)),
            name=name,
            steps=recipe.steps,
            peak_lr=PEAK_LR,
            progress=note,
        )
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "recipe.json").write_text(json.dumps(recipe.identity(), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)


def _lessons(recipe: Further, tokenizer: Any, task: Any) -> Iterator[Any]:
    from renio_pipeline.study.lessons import repairing, shown

    if recipe.repair:
        return repairing(tokenizer, task, steps=recipe.steps, batch=BATCH, slip=recipe.repair, seed=0)
    return shown(
        tokenizer, task, steps=recipe.steps, batch=BATCH, share=recipe.shown, early=recipe.early, slip=recipe.slip, seed=0
    )
