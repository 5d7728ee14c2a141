"""The study's own models: the embedded ones, trained further. They are made once, deterministically, in the study's folder."""

from __future__ import annotations

import copy
import json
import math
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
    unborrowed: float = 0.0  # students: the share of the subtractions that need to borrow and go without; nothing else is wrong
    layers: int = 0  # more of them: those of the start, and new ones above that change nothing until they are trained
    noticed: float = 1.0  # teachers: the share of the slips that are marked; the others are carried to the end
    batch: int = BATCH

    def identity(self) -> dict[str, Any]:
        """Everything that determines the model's bytes. What is at its default says nothing, so older models stay valid."""
        values = asdict(self) | {"batch": self.batch, "peak_lr": PEAK_LR, "seed": 0}
        for name, default in (("layers", 0), ("noticed", 1.0), ("unborrowed", 0.0)):
            if values[name] == default:
                del values[name]
        mark = {"mark": REPAIR} if self.repair else {}
        grown = RECIPES[self.start.removeprefix(PREFIX)].identity() if self.start.startswith(PREFIX) else None
        return values | mark | ({"start": grown} if grown else {})


RECIPES = {
    "half-repairing": Further(start="embedded:teacher", steps=400, repair=0.25),
    "repairing": Further(start="embedded:teacher", steps=1200, repair=0.25),
    "noticing": Further(start="embedded:teacher", steps=2000, repair=0.25, layers=6, batch=48),
    "noticing-half": Further(start="study:noticing", steps=150, repair=0.25, noticed=0.5, batch=48),
    "noticing-quarter": Further(start="study:noticing", steps=150, repair=0.25, noticed=0.25, batch=48),
    "noticing-none": Further(start="study:noticing", steps=150, repair=0.25, noticed=0.0, batch=48),
    "shown-student": Further(start="embedded:student", steps=1000, shown=0.5, early=0.35, slip=0.3),
    "forgetful-student": Further(start="embedded:student", steps=300, unborrowed=0.85),
}


def grown_sizes() -> dict[str, int]:
    """The number of parameters of each model with more layers than its start, by the shapes in the embedded model's file."""
    return {name: _parameters(start, layers) for name in RECIPES for start, layers in [_grown(name)] if layers}


def _grown(name: str) -> tuple[str, int]:
    """The embedded model that a model goes back to, and the layers that it was grown to; 0 if it was not."""
    recipe = RECIPES[name]
    if not recipe.start.startswith(PREFIX):
        return recipe.start, recipe.layers
    start, layers = _grown(recipe.start.removeprefix(PREFIX))
    return start, recipe.layers or layers


def _parameters(start: str, layers: int) -> int:
    """Of a model whose last layer is repeated until it has that many."""
    from safetensors import safe_open

    with safe_open(Path(info.resolve(start)) / "model.safetensors", framework="np") as file:
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}
    own = 1 + max(int(name.split(".")[2]) for name in sizes if name.startswith("model.layers."))
    last = sum(size for name, size in sizes.items() if name.startswith(f"model.layers.{own - 1}."))
    return sum(sizes.values()) + (layers - own) * last


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

    start = info.resolve(ready(recipe.start, path.parent, note))
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    with threads(1):
        if recipe.layers:
            model = deepened(model, recipe.layers)
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


def deepened(model: Any, layers: int) -> Any:
    """A copy of the model with new layers above its own, up to this many, which change nothing until they are trained.

    A new layer begins as a copy of the last, whose two projections into the residual stream are zero.
    """
    import torch

    config = copy.deepcopy(model.config)
    own, config.num_hidden_layers = config.num_hidden_layers, layers
    config.layer_types = [*config.layer_types[:own], *config.layer_types[own - 1 : own] * (layers - own)]
    deep = type(model)(config)
    deep.load_state_dict(model.state_dict(), strict=False)
    for layer in deep.model.layers[own:]:
        layer.load_state_dict(model.model.layers[-1].state_dict())
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return deep


def _lessons(recipe: Further, tokenizer: Any, task: Any) -> Iterator[Any]:
    from renio_pipeline.study.lessons import forgetful, repairing, shown

    if recipe.unborrowed:
        return forgetful(tokenizer, task, steps=recipe.steps, batch=recipe.batch, forgets=recipe.unborrowed, seed=0)
    if recipe.repair:
        return repairing(
            tokenizer, task, steps=recipe.steps, batch=recipe.batch, slip=recipe.repair, mark=recipe.noticed, seed=0
        )
    return shown(
        tokenizer,
        task,
        steps=recipe.steps,
        batch=recipe.batch,
        share=recipe.shown,
        early=recipe.early,
        slip=recipe.slip,
        seed=0,
    )
