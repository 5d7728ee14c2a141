"""The places that a run's problems come from: one, or several that are mixed."""

from __future__ import annotations

from dataclasses import dataclass

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import Part, parts
from renio_pipeline.config.schema import ProblemSource, Prompts
from renio_pipeline.data.mixing.mixed_rows import OfSource
from renio_pipeline.data.rows import Made, Rows
from renio_pipeline.tasks import Split, Task
from renio_pipeline.tasks.mixed import MixedTask


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemOrigin:
    """A place that problems come from: the section ``data``, or one of ``data.sources``."""

    section: ProblemSource
    key: str
    task: Task
    part: Part | None = None

    @property
    def prompts(self) -> Prompts | None:
        """The source's own section ``prompts``; None: the run's holds."""
        return self.part.section.prompts if self.part else None

    @property
    def has_held_out(self) -> bool:
        """Whether it can have held-out problems: one of several sources that reads a file needs another file for them."""
        return self.part is None or not self.section.path or bool(self.section.held_out_path)

    def named(self, rows: Rows) -> Rows:
        """As rows of this source."""
        return rows if self.part is None else OfSource(rows, self.part.name, self.part.section.teacher)

    def made(self, split: Split, count: int) -> Rows:
        """Rows that the task generates. Raises ConfigError if it generates none."""
        try:
            return self.named(Made(self.task.rows(split, count)[:count]))
        except ConfigError as error:
            raise ConfigError(str(error).replace("data.", f"{self.key}.")) from None


def origins_of(config: RunConfig, task: Task) -> list[ProblemOrigin]:
    """The section ``data``, or each of its sources. ``task``: of ``config.task_recipe``."""
    if not isinstance(task, MixedTask):
        return [ProblemOrigin(section=config.data, key="data", task=task)]
    return [
        ProblemOrigin(section=part.section, key=part.key, task=task.tasks[part.name], part=part) for part in parts(config.data)
    ]
