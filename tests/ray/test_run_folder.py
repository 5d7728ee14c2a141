"""A run whose folder a trainer rank does not see ends before any model is trained."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from actors import launch
from actors.trainer.rank import TrainerRank
from renio_pipeline.config import ConfigError
from tests.ray.conftest import demo, run


class RankElsewhere(TrainerRank):
    """A rank on a node that has another file system under the same path."""

    def sees(self, path: str) -> tuple[str, bool]:
        return super().sees(f"/elsewhere{path}")


def test_a_rank_that_does_not_see_the_runs_folder_ends_the_start(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "TrainerRank", RankElsewhere)
    config, prepared = demo(f"run_dir={tmp_path}", "pools.trainer.replicas=2")

    async def go() -> None:
        async with launch.stages(config, prepared):
            pass

    with pytest.raises(ConfigError, match=f"run_dir: {tmp_path} is not visible on {socket.gethostname()}; use a shared file"):
        run(go())
    assert list(tmp_path.iterdir()) == []
