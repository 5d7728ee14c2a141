"""Which options vLLM's engine accepts, read from its source: importing vLLM takes seconds and much memory."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.nearest import nearest


def accepted() -> set[str]:
    """The fields of vLLM's EngineArgs. Empty if vLLM is not installed, as on a driver without it."""
    package = find_spec("vllm")
    if package is None or package.origin is None:
        return set()
    tree = ast.parse((Path(package.origin).parent / "engine/arg_utils.py").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EngineArgs"]
    return {
        field.target.id
        for node in classes
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def check_engine_options(config: RunConfig) -> None:
    """Raises ConfigError for an option that vLLM's engine does not have."""
    known = accepted()
    teachers = ((config.teacher_key(name), teacher.engine) for name, teacher in config.all_teachers.items())
    for section, options in (("generator", config.generator.engine), *teachers):
        for unknown in known and sorted(options.keys() - known):
            near = nearest(unknown, known)
            hint = f"; did you mean {near}?" if near else ""
            raise ConfigError(f"{section}.engine.{unknown}: vLLM's engine has no such option{hint}")
