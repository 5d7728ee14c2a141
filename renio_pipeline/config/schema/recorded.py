"""The key of a teacher whose signals were recorded before: ``teacher.type: recorded``."""

from __future__ import annotations

from pydantic import Field

from renio_pipeline.config.paths import UserPath
from renio_pipeline.config.schema.values import Section


class Recorded(Section):
    """Where the signals of a teacher of type recorded are."""

    path: UserPath | None = Field(
        None,
        description="Of type recorded: the folder that `renio score` wrote; the run takes responses and signals from it.",
    )
