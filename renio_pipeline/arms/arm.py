"""What an arm is: a name, and keys that differ from the common configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig, load

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
MAY_DIFFER = (
    "weighting", "diagnostics", "objective", "reward", "trainer", "filter", "filter_batch", "unfinished", "student_logprobs",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arm:
    name: str
    overrides: tuple[str, ...]  # key=value
    config: RunConfig


def arms_of(paths: Sequence[str], common: Sequence[str], given: Sequence[Sequence[str]]) -> list[Arm]:
    """The arms that ``--arm NAME: key=value ...`` describes, checked.

    Args:
        paths, common: the configuration files and the overrides that all arms have.
        given: the words of each ``--arm``.

    Raises:
        ConfigError: fewer than two arms, two of one name, a malformed one, or one that changes what the arms share.
    """
    arms = []
    for words in given:
        name, colon, rest = " ".join(words).partition(":")
        overrides = tuple(rest.split())
        if not colon or not NAME.fullmatch(name.strip()):
            raise ConfigError(
                f"--arm: {' '.join(words)!r} is no arm; expected NAME: key=value ..., as in uniform: weighting.type=uniform"
            )
        arms.append(Arm(name=name.strip(), overrides=overrides, config=load(paths, [*common, *overrides])))
    names = [arm.name for arm in arms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--arm: two are named {twice[0]!r}; give each its own name")
    if len(arms) < 2:
        raise ConfigError(f"--arm: {len(arms)} given; give at least two, each as NAME: key=value ...")
    for arm in arms[1:]:
        _check_shared(arms[0], arm)
    return arms


def _check_shared(first: Arm, other: Arm) -> None:
    one, two = (arm.config.model_dump(mode="json") for arm in (first, other))
    differing = [key for key in one if one[key] != two[key] and key not in MAY_DIFFER]
    if differing:
        raise ConfigError(
            f"--arm: {first.name} and {other.name} differ in {', '.join(differing)}, which arms share, as they have the same "
            f"engines and problems; what all have comes before the first --arm, and they may differ in {', '.join(MAY_DIFFER)}"
        )
    if first.config.objective.payload != other.config.objective.payload:
        raise ConfigError(
            f"--arm: the objectives of {first.name} ({first.config.objective.label}) and {other.name} "
            f"({other.config.objective.label}) need different payloads, and the arms share the teachers that send them"
        )


def of_cell(arm: Arm, seed: int, steps: int, folder: Path) -> RunConfig:
    """The configuration of one run. Its held-out problems are answered by the race, problem by problem, not by the run."""
    config = arm.config
    return config.model_copy(
        update={
            "seed": config.seed + seed,
            "steps": steps,
            "run_dir": str(folder),
            "evaluate": config.evaluate.model_copy(update={"problems": 0}),
        }
    )
