"""One vLLM for all tests here: it is imported once in a process, which takes seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import renio_pipeline

STUDENT = str(Path(renio_pipeline.__file__).parent / "demo" / "student")

# Read by the packages when they are imported.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("DS_ACCELERATOR", "cpu")


@pytest.fixture(scope="session")
def vllm_config() -> Any:
    """The configuration that vLLM makes for the demo's student in this process. It starts no engine."""
    from vllm import EngineArgs

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        return EngineArgs(
            model=STUDENT, dtype="float32", distributed_executor_backend="uni", max_model_len=64, async_scheduling=True
        ).create_engine_config()
