"""A run that somebody submits who has only Ray's client, by a runtime environment that installs the project."""

from __future__ import annotations

import re
import subprocess

from renio_pipeline.ledger import prove_exactly_once
from renio_pipeline.metrics.sink import read_jsonl
from tests.ray.watched import STEPS, Watched


def test_who_submits_has_only_rays_client(watched_run: Watched) -> None:
    for name in ("renio_pipeline", "actors", "vllm", "torch", "deepspeed", "transformers", "omegaconf"):
        shown = subprocess.run([watched_run.client / "python", "-I", "-c", f"import {name}"], capture_output=True, text=True)
        assert f"No module named '{name}'" in shown.stderr


def test_the_job_ran_what_its_runtime_environment_installed(watched_run: Watched) -> None:
    lines = watched_run.printed.splitlines()
    renio = next(line for line in lines if line.endswith("/bin/renio"))
    code, packages = next(m.groups() for line in lines if (m := re.fullmatch(r"code (\S+) packages (\S+)", line)))
    assert renio.startswith(f"{watched_run.cluster}/")
    assert "/runtime_resources/pip/" in renio
    assert code.startswith(f"{watched_run.cluster}/")
    assert "/runtime_resources/" in code
    assert not packages.startswith(f"{watched_run.cluster}/"), (
        "the packages were copied: the node's environment is no thin layer"
    )
    kinds = {title.split()[0].partition(".")[0] for title in watched_run.environments}
    assert kinds >= {"ray::Generator", "ray::Teacher", "ray::TrainerRank"}
    assert {f"{virtual}/bin/renio" for virtual in watched_run.environments.values()} == {renio}


def test_the_run_did_its_steps_and_the_job_succeeded(watched_run: Watched) -> None:
    lines = read_jsonl(watched_run.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    prove_exactly_once(watched_run.folder)
    assert "succeeded" in watched_run.printed
