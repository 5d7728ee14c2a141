"""The examples of docs/extending.md, as they stand there: loaded by their configuration, and run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from renio_pipeline.config import RunConfig, parse
from renio_pipeline.objectives import trained_objective
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row
from renio_pipeline.weightings import weighting_of
from renio_pipeline.weightings.step import weigh_step
from tests.unit.conftest import values
from tests.unit.models.test_student import V, make_model, make_samples, share
from tests.unit.weightings.test_weightings import BATCH

PAGE = Path(__file__).parents[2] / "docs/extending.md"


def write_examples(folder: Path) -> None:
    """Each file that the page shows, under its title."""
    for title, text in re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL):
        (folder / title).write_text(text)


@pytest.fixture(autouse=True)
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)


def config_of(example: str) -> RunConfig:
    return parse(values(**yaml.safe_load(Path(f"{example}.yaml").read_text())))


def test_the_page_has_the_files_that_its_configurations_name() -> None:
    kinds = ("my_task", "my_weighting", "my_objective")
    assert sorted(p.name for p in Path().iterdir()) == sorted(f"{kind}.{end}" for kind in kinds for end in ("py", "yaml"))


def test_the_task() -> None:
    config = config_of("my_task")
    task = make_task(config.task, config.task_options)
    row = Row(id="0", problem="stone")
    assert task.messages(row) == [{"role": "user", "content": "Write stone backwards, 2 times."}]
    assert [task.verify(row, text) for text in ("enots enots", "enots", "enots stone")] == [
        "correct",
        "unfinished",
        "incorrect",
    ]


def test_the_weighting() -> None:
    config = config_of("my_weighting")
    found = weigh_step(weighting_of(config), config.pivotal, BATCH, None)
    mean = (1 + 3 + 1) / 3
    assert found.weights.tolist() == pytest.approx([1 / mean, 3 / mean, 1 / mean])
    assert found.token_factors is not None
    assert [f.tolist() for f in found.token_factors] == [[1, 0.5, 0.5], [1], []]
    again = weigh_step(weighting_of(config), config.pivotal, BATCH, {"mean": 1.0})
    assert again.state == {"mean": pytest.approx(0.9 + 0.1 * mean)}


def test_the_objective() -> None:
    objective = trained_objective(config_of("my_objective"))
    assert (objective.payload.kind, objective.working_bytes(152_000) > 0) == ("sampled", True)
    model, (samples, _) = make_model(), make_samples()
    micro = share(model, samples, {}, objective=objective)
    teacher = torch.tensor(np.concatenate([s.teacher_logprobs for s in samples]))
    ratio = micro.student_logprobs - teacher
    torch.testing.assert_close(micro.per_token, ratio.clamp(-5, 5).square() / 2)
    shares = [s.weight / len(s.response_ids) / len(samples) for s in samples for _ in s.response_ids]
    torch.testing.assert_close(micro.loss, (torch.tensor(shares) * micro.per_token).sum())
    micro.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert ratio.abs().max() > 0.1
    assert samples[0].response_ids.max() < V
