"""A study: experiments, each in a file, and all of their runs in the order in which they are done.

The file of an experiment names the configuration that its runs share, its arms and its factors, each as ``key=value``
overrides, as on the command line. Every arm runs at every combination of the factors' levels, once per seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, PositiveInt, ValidationError, model_validator
from yaml import YAMLError

from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.config.schema import Section
from renio_pipeline.config.variants import KINDS
from renio_pipeline.study.models import PREFIX, RECIPES
from renio_pipeline.weightings.adaptive import Adaptive

Kind = Literal["training", "weights", "models", "teachers"]
Overrides = tuple[str, ...]  # key=value
MEASURED: dict[Kind, tuple[str, ...]] = {
    "teachers": ("teachers", "loss")
}  # where more was measured than the kind's first results hold
ORDER = "acbgpshrdefmtk"  # experiments at each seed: the first questions first


class Claim(Section):
    """The statement that one arm does better than another, against which a comparison is read."""

    better: str
    than: str
    source: Literal["paper", "question"] = Field(
        "question", description="paper: a claim of the paper; question: no direction expected"
    )


class Experiment(Section):
    """One file of ``configs/study``."""

    experiment: str = Field(pattern=r"^[a-z]$")
    title: str
    question: str
    chosen: str = Field(description="how the arms and the levels were chosen")
    kind: Kind = Field(
        "training", description="weights: score the first responses; models, teachers: measure the student, the teacher"
    )
    run: str = Field("run.yaml", description="the configuration that the runs share, in the folder of this file")
    seeds: PositiveInt = 10
    arms: dict[str, Overrides] = Field(min_length=1)
    factors: dict[str, dict[str, Overrides]] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    prefixes: tuple[PositiveInt, ...] = Field(
        (), description="for kind weights: prefix lengths to weigh, in addition to the whole"
    )
    cost: bool = Field(False, description="show what each arm costs")
    regress: bool = Field(False, description="set the first claim's differences against what is measured of each teacher")
    curves: bool = Field(False, description="plot every step's share of correct responses")

    @model_validator(mode="after")
    def _claims_of_arms(self) -> Experiment:
        for name in [n for claim in self.claims for n in (claim.better, claim.than)]:
            if self.kind == "training" and name not in self.arms:
                raise ValueError(f"claims: {name!r} is not an arm; there are {', '.join(self.arms)}")
        if self.regress and (self.kind != "training" or not self.claims):
            raise ValueError("regress: true needs an experiment of kind training with a claim, whose differences are set")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a study: an arm at one level of each factor, with a seed."""

    experiment: str
    kind: Kind
    arm: str
    factors: dict[str, str]  # factor -> level
    seed: int
    config: RunConfig
    key: str  # identifies everything that determines the result, except the seed
    prefixes: tuple[int, ...] = ()


def read(path: Path) -> Experiment:
    """Read the file of an experiment. Raises ConfigError, which names the file, the key and the allowed values."""
    try:
        return Experiment.model_validate(OmegaConf.to_container(OmegaConf.load(path)))
    except FileNotFoundError:
        raise ConfigError(f"--config: {path} does not exist") from None
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        faults = [
            f"  {'.'.join(map(str, f['loc'])) or 'file'}: {f['msg'].removeprefix('Value error, ')}" for f in error.errors()
        ]
        raise ConfigError("\n".join([f"{path}:", *faults])) from None


def in_order(paths: Sequence[Path], only: Sequence[str] = ()) -> dict[Path, Experiment]:
    """The experiments in ``paths``, by file; only those that ``only`` names, if it names any.

    Raises:
        ConfigError: a file is not an experiment, two have the same name, or ``only`` has an unknown name.
    """
    found = {path: read(path) for path in paths}
    names = [e.experiment for e in found.values()]
    if doubled := {n for n in names if names.count(n) > 1}:
        raise ConfigError(f"--config: two files are experiment {min(doubled)!r}")
    if unknown := [n for n in only if n not in names]:
        raise ConfigError(f"--only: there is no experiment {unknown[0]!r}; there are {', '.join(sorted(names))}")
    chosen = [(p, e) for p, e in found.items() if not only or e.experiment in only]
    return dict(sorted(chosen, key=lambda item: (ORDER.find(item[1].experiment) % 99, item[1].experiment)))


def cells(experiments: dict[Path, Experiment], seeds: int | None = None) -> Iterator[Cell]:
    """All runs, breadth-first: all experiments with the first seed, then with the next, so that pairs are complete.

    Args:
        seeds: the number of seeds, instead of each experiment's own.
    """
    combinations = {e.experiment: list(_combinations(path, e)) for path, e in experiments.items()}
    for seed in range(max((seeds or e.seeds for e in experiments.values()), default=0)):
        for e in experiments.values():
            if seed < (seeds or e.seeds):
                yield from (_cell(e, arm, levels, config, seed) for arm, levels, config in combinations[e.experiment])


def _combinations(path: Path, e: Experiment) -> Iterator[tuple[str, dict[str, str], RunConfig]]:
    for levels in product(*(factor.items() for factor in e.factors.values())):
        for arm, overrides in e.arms.items():
            given = [o for _, level in levels for o in level] + list(overrides)
            config = load(path.parent / e.run, given)
            yield arm, dict(zip(e.factors, (name for name, _ in levels), strict=True)), config


def _cell(e: Experiment, arm: str, levels: dict[str, str], config: RunConfig, seed: int) -> Cell:
    return Cell(
        experiment=e.experiment,
        kind=e.kind,
        arm=arm,
        factors=levels,
        seed=seed,
        config=config.model_copy(update={"seed": seed}),
        key=key_of(config, e),
        prefixes=e.prefixes,
    )


def key_of(config: RunConfig, e: Experiment) -> str:
    """A key that is equal for runs with the same result at the same seed, so that coinciding arms are computed once.

    It depends only on values that differ from their defaults, so a new key of the schema leaves old results valid. Of the
    weighting ``adaptive`` it depends on all.
    """
    values = config.model_dump(mode="json", exclude_defaults=True)
    for name in ("seed", "name", "run_dir"):
        values.pop(name, None)
    for kind in KINDS:
        if kind in values and not _untyped(section := getattr(config, kind), values[kind]):
            values[kind] = {**values[kind], "type": section.type}
    if isinstance(config.weighting, Adaptive):  # its defaults follow from studies, and move with what they find
        values["weighting"] = {**config.weighting.model_dump(mode="json"), **asdict(config.weighting.rules)}
    values["models"] = [RECIPES[n].identity() for n in sorted(_own_models(config))]
    values["measured"] = [*MEASURED.get(e.kind, (e.kind,)), *e.prefixes]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _untyped(section: Section, values: dict[str, Any]) -> bool:
    """Whether a key holds a section's values without its type. All did when no two sections of a study differed in the type
    alone; those of that time still do, so that their results stay valid.
    """
    kind = getattr(section, "type", None)
    return kind in ("renio", "jsd", "opsd") or (kind == "uniform" and not values)


def _own_models(config: RunConfig) -> set[str]:
    if config.teachers:
        raise ConfigError("teachers: a study's student has one teacher; use `teacher`, and a factor for others")
    own = {name.removeprefix(PREFIX) for name in models_of(config) if name.startswith(PREFIX)}
    if unknown := own - RECIPES.keys():
        raise ConfigError(f"{PREFIX}{min(unknown)}: the study has no such model; there are {', '.join(RECIPES)}")
    return own


def models_of(config: RunConfig) -> list[str]:
    """The names of the models that a run loads."""
    return [config.student, *(config.teacher_model(name) for name in config.all_teachers)]
