"""A race's files and what is shown of it.

arms.json                what was asked, so that the same race goes on; after each seed the look, and at the end the winner
seed-N/ARM/              the directory of one run, with held_out.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from renio_pipeline.arms.arm import Arm
from renio_pipeline.arms.sequential import ERROR, Look
from renio_pipeline.config import ConfigError
from renio_pipeline.run_dir.checkpoint_files import write_durably

FILE = "arms.json"


def asked(arms: Sequence[Arm], steps: int) -> dict[str, Any]:
    """What determines a race's runs, besides their number."""
    return {
        "arms": {arm.name: list(arm.overrides) for arm in arms},
        "steps": steps,
        "configs": {arm.name: arm.config.model_dump(mode="json", exclude={"run_dir"}) for arm in arms},
    }


def begin(folder: Path, race: dict[str, Any]) -> None:
    """Write what is asked, or go on with what is there.

    Raises:
        ConfigError: the folder has another race, or something else.
    """
    path = folder / FILE
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["asked"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"--out: {path} is damaged: {error!r}; give another folder") from None
        if differing := [key for key in race if before.get(key) != race[key]]:
            raise ConfigError(f"--out: {folder} has a race with other {', '.join(differing)}; give another folder")
        return
    if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise ConfigError(f"--out: {folder} is not empty, and not a race's folder; give another one")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, race, [])


def write(folder: Path, race: dict[str, Any], looks: Sequence[Look]) -> None:
    last = looks[-1] if looks else None
    winner = {"winner": last.winner, "overrides": race["arms"][last.winner] if last.winner else None} if last else {}
    values = {"asked": race, "looks": [asdict(each) for each in looks], **winner}
    write_durably(folder / FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def look_table(look: Look) -> Table:
    """The arms, the leader first."""
    title = f"held-out accuracy in %, after {look.seeds} {'seed' if look.seeds == 1 else 'seeds'}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("arm", "accuracy", f"{look.leader} ahead by, points", "p", "by seed"):
        table.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=True)
    table.add_row(look.leader, f"{100 * look.accuracy[look.leader]:.1f}", "", "", "")
    for a in sorted(look.against, key=lambda a: a.difference.value):
        d = a.difference
        ahead = f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        by_seed = " ".join(f"{100 * each:+.1f}" for each in a.by_seed)
        table.add_row(a.other, f"{100 * look.accuracy[a.other]:.1f}", ahead, f"{a.p_value:.2g}", by_seed)
    return table


def verdict(look: Look, arms: Sequence[Arm], looks: int) -> Iterator[str]:
    """What the last look says."""
    if look.clear:
        (winner,) = (arm for arm in arms if arm.name == look.leader)
        yield f"{winner.name} is clearly ahead, in each of {look.seeds} seeds: {' '.join(winner.overrides) or 'no overrides'}"
    else:
        yield f"no arm is clearly ahead after {look.seeds} of {looks} seeds; {look.leader} leads"
    level = ERROR / (looks * len(look.against))
    shared = f"5 % shared out over {looks} looks and {len(look.against)} comparisons"
    yield f"(clear: p below {level:.2g}, {shared}; intervals over problems)"
