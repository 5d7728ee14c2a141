"""What the documents point at is there: files, commands, targets and keys."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import RunConfig
from tests.gpu.checks import CHECKS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "deploy/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("**/*.md"))
FIRST_RUN = (ROOT / "docs/first-gpu-run.md").read_text()
PAGES = pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@PAGES
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    missing = [
        link for link in links if not re.match(r"[a-z]+:|#", link) and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert not missing


@PAGES
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", page.read_text())) <= targets


def test_every_command_that_the_documents_name_exists() -> None:
    command = [sys.executable, "-m", "renio_pipeline", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    commands = set(re.findall(r"^ {4}([a-z-]+)\b", shown, re.MULTILINE))
    text = "\n".join(page.read_text() for page in DOCUMENTS)
    named = set(re.findall(r"(?:^ *|`|-- )renio ([a-z-]+)", text, re.MULTILINE))
    assert {"doctor", "plan", "train"} <= named <= commands


KEYS = re.findall(r"`((?:sync|faults|generator|pools)\.[a-z_.]+)`", FIRST_RUN)


@pytest.mark.parametrize("key", sorted(set(KEYS)))
def test_every_key_of_the_first_run_exists(key: str) -> None:
    model: Any = RunConfig
    for part in key.split("."):
        if not hasattr(model, "model_fields"):
            return  # a key of a mapping, which is vLLM's
        assert part in model.model_fields
        model = model.model_fields[part].annotation


def test_the_rows_of_the_gpu_check_are_those_that_the_document_names() -> None:
    groups = {check.name[0] for check in CHECKS}
    assert groups == set(re.findall(r"\(rows? ([a-d])\)", FIRST_RUN))
    assert "b-lora" in {check.name for check in CHECKS}
