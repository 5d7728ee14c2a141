"""What the documents point at is there: files, anchors, commands and their options, targets, keys, modules."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import typing
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from docs.generate.configuration import page as configuration_page
from renio_pipeline.cli import _parser, main
from renio_pipeline.config import RunConfig, load
from renio_pipeline.config.describe import describe, sections_of
from tests.gpu.checks import CHECKS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "deploy/README.md", "tests/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("**/*.md"))
FIRST_RUN = (ROOT / "docs/first-gpu-run.md").read_text()
PAGES = pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
FENCE = re.compile(r"^ *```.*?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
TOP = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"runs", "site"}


def code_spans(text: str) -> list[str]:
    """What stands in backticks, in running text."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def code_lines(text: str) -> list[str]:
    """The lines of code blocks, and the spans, without comments; a line that ends in a backslash goes on in the next."""
    blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
    return [re.sub(r"\s#.*", "", line).strip() for line in [*blocks.splitlines(), *code_spans(text)]]


def commands(text: str) -> Iterator[list[str]]:
    """Each ``renio`` command that the text shows, as words."""
    for line in code_lines(text):
        for part in re.split(r"; |&& |-- ", line):
            if re.match(r"(\S*/)?renio [a-z]", part.strip()) and "|" not in part:
                yield shlex.split(part.split(" > ")[0])[1:]


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    actions = _parser()._actions
    return next(dict(a.choices) for a in actions if isinstance(a, argparse._SubParsersAction))


def slug(heading: str) -> str:
    """As GitHub and MkDocs make an anchor of a heading."""
    words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
    return re.sub(r"[\s]+", "-", words)


@cache
def anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text().replace("<!-- generated: keys -->", configuration_page()))
    headings = re.findall(r"^#+ (.*?)(?: \{#([\w-]+)\})?$", text, re.MULTILINE)
    return {own or slug(heading) for heading, own in headings}


def key_fault(key: str) -> str | None:
    """Which part of a dotted key is not there; ``*`` and NAME stand for any."""
    models: list[Any] = [RunConfig]
    parts = key.split(".")
    for i, part in enumerate(parts):
        if part in ("*", "NAME"):
            models = [m for model in models for field in model.model_fields.values() for m in sections_of(field.annotation)]
            continue
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if not fields:
            return f"{key}: no {part}"
        mapping = any(typing.get_origin(a) is dict for f in fields for a in (f.annotation, *typing.get_args(f.annotation)))
        models = [m for field in fields for m in sections_of(field.annotation)]
        if mapping:  # what follows is named by the user, or by vLLM or DeepSpeed
            rest = parts[i + 2 :]
            return (
                None
                if not models or not rest
                else next((None for m in models if rest[0] in m.model_fields), f"{key}: no {rest[0]}")
            )
        if not models:
            return None if i == len(parts) - 1 else f"{key}: {part} has no keys"
    return None


def keys_in(text: str) -> set[str]:
    """Dotted keys of the configuration that stand in backticks, and the overrides of commands."""
    spans = [re.split(r"[:=]", span)[0] for span in code_spans(text)]
    spans = [span for span in spans if not span.endswith((".json", ".jsonl", ".yaml", ".py"))]
    dotted = {
        s for s in spans if re.fullmatch(r"[a-z_]+(\.([a-z_]+|\*|NAME))+", s) and s.split(".")[0] in RunConfig.model_fields
    }
    words = [pair for words in commands(text) for pair in pairwise(words)]
    given = {word.split("=")[0] for before, word in words if re.match(r"[a-z_.]+=", word) and before[:2] != "--"}
    return dotted | {key for key in given if not re.match(r"(generator|teacher)(\.\w+)?$", key)}  # the sizes of `renio scale`


@cache
def names_in(module: Path) -> set[str]:
    """What a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return found


def module_is_there(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        file = next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)
        if file or (base.is_dir() and end == len(parts)):
            return end == len(parts) or (file is not None and parts[end] in names_in(file))
    return False


@PAGES
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing


@PAGES
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in code_lines(page.read_text()) if line.startswith("make ") for word in line.split()[1:]}
    assert {word for word in named if re.fullmatch("[a-z-]+", word)} <= targets


@PAGES
def test_every_command_that_is_named_exists_with_its_options(page: Path) -> None:
    for words in commands(page.read_text()):
        assert words[0] in parsers(), words
        options = {option for action in parsers()[words[0]]._actions for option in action.option_strings}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= options, words


def test_commands_are_found() -> None:
    found = {words[0] for page in DOCUMENTS for words in commands(page.read_text())}
    assert found >= {"train", "check", "config", "doctor", "plan", "eval", "report", "status", "scale", "study", "stop"}


@PAGES
def test_every_key_that_is_named_exists(page: Path) -> None:
    assert [fault for key in sorted(keys_in(page.read_text())) if (fault := key_fault(key))] == []


@PAGES
def test_every_key_that_is_shown_with_a_value_exists_in_some_section(page: Path) -> None:
    known = {key.name.split(".")[-1] for section in describe(RunConfig) for key in section.keys} | set(RunConfig.model_fields)
    shown = {m[1] for span in code_spans(page.read_text()) if (m := re.match(r"([a-z_]+): \S", span))}
    assert shown <= known


def test_keys_are_found_and_a_wrong_one_is_seen() -> None:
    assert "pools.*.replicas" in keys_in((ROOT / "docs/operations.md").read_text())
    assert key_fault("pools.*.gpus") is None
    assert key_fault("pools.teachers.maths.gpus") is None
    assert key_fault("generator.engine.max_num_seqs") is None
    assert key_fault("objective.entry_clip") is None
    assert [key_fault(key) for key in ("trainer.lrr", "steps.x", "pools.*.gpu", "teachers.maths.modell")] == [
        "trainer.lrr: no lrr",
        "steps.x: steps has no keys",
        "pools.*.gpu: no gpu",
        "teachers.maths.modell: no modell",
    ]


@PAGES
def test_every_path_and_module_in_backticks_is_there(page: Path) -> None:
    missing = []
    for span in code_spans(page.read_text()):
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+/?", span) and span.split("/")[0] in TOP:
            if not any(any(folder.glob(span.rstrip("/"))) for folder in (ROOT, page.parent)):
                missing.append(span)
        elif re.fullmatch(r"(renio_pipeline|actors|tests|deploy)(\.\w+)+", span) and not module_is_there(span):
            missing.append(span)
    for line in code_lines(page.read_text()):
        run = re.search(r"python3? -m ((?:tests|deploy|renio_pipeline)[\w.]*)", line)
        missing += [run[0]] if run and not module_is_there(run[1]) else []
    assert not missing


def test_what_is_not_there_is_seen() -> None:
    assert module_is_there("renio_pipeline.weighting.pivotal_weights")
    assert not module_is_there("renio_pipeline.weighting.nothing")
    assert not module_is_there("renio_pipeline.nothing")


def test_the_rows_of_the_gpu_check_are_those_that_the_document_names() -> None:
    groups = {check.name[0] for check in CHECKS}
    assert groups == set(re.findall(r"\(rows? ([a-d])\)", FIRST_RUN))
    assert "b-lora" in {check.name for check in CHECKS}


def test_the_first_run_of_ones_own_is_one_and_fits_the_gpus_that_the_documents_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for name in ("README.md", "docs/quickstart.md"):
        text = (ROOT / name).read_text()
        file = tmp_path / "my.yaml"
        file.write_text(text.partition("cat > my.yaml <<'END'\n")[2].partition("\nEND\n")[0])
        shown.append(load([file]))
        (device,) = re.findall(r"^renio plan my\.yaml --device (\w+) .* three GPUs", text, re.MULTILINE)
        assert main(["plan", str(file), "--device", device, "--offline"]) == 0
        assert re.search(r"^configured +3 ", capsys.readouterr().out, re.MULTILINE)
    assert shown[0] == shown[1]
