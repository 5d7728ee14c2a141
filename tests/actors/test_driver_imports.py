"""What the driver does before an actor starts, it does without torch, vLLM and DeepSpeed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_run_is_prepared_and_its_actors_are_declared_without_torch() -> None:
    """In a process of its own: pytest's has everything."""
    program = (
        "import sys; from renio_pipeline.config import load; from actors import launch, run_checks\n"
        "from renio_pipeline.loop.run import Run\n"
        "prepared = run_checks.prepare_locally(load('configs/demo.yaml', []))\n"
        "run_checks.check_engine_options(load('configs/demo.yaml', [])); assert len(prepared.prompt_ids[0])\n"
        "print(sorted({'torch', 'vllm', 'deepspeed'} & sys.modules.keys()))"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]", found.stdout
