"""What the configuration says of itself: every key is described, and ``renio config`` prints what a run would use."""

from __future__ import annotations

from pathlib import Path

import pytest

from renio_pipeline import __version__
from renio_pipeline.cli import main
from renio_pipeline.config import RunConfig, load
from renio_pipeline.config.describe import SectionKeys, annotated, describe
from tests.unit.conftest import make_config

ROOT = Path(__file__).parents[3]
SECTIONS = list(describe(RunConfig))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: f"{s.name}:{s.variant}")
def test_every_section_and_every_key_says_what_it_is(section: SectionKeys) -> None:
    assert section.text
    assert [key.name for key in section.keys if not (key.text and key.allowed)] == []


def test_a_description_has_the_variants_of_a_union_ranges_defaults_and_what_the_user_names() -> None:
    found = {(key.name, key.variant): key for section in SECTIONS for key in section.keys}
    assert found["objective.beta", "jsd"].allowed == "number ≥ 0, ≤ 1"
    assert found["objective.k", "top_k_forward_kl"].default == "32"
    assert "`jsd`" in found["objective.type", ""].allowed
    assert found["steps", ""].default == "", "it has no default: it must be given"
    assert found["steps", ""].allowed == "integer > 0"
    assert found["trainer.lora", ""].default == "null"
    assert found["trainer.lora.r", ""].allowed == "integer ≥ 1, ≤ 512"
    assert ("pools.teachers.NAME.gpus", "") in found


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yaml")) + sorted(ROOT.glob("configs/paper/qwen*.yaml")), ids=str)
def test_what_renio_config_prints_is_the_same_configuration(path: Path, tmp_path: Path) -> None:
    config = load(path, ["trainer.lr=1e-6", "pools.teacher.env.NCCL_DEBUG=INFO"])
    printed = tmp_path / "printed.yaml"
    printed.write_text(annotated(config))
    assert load(printed) == config


def test_renio_config_prints_one_key_with_its_default_and_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--config", str(ROOT / "configs/demo.yaml"), "batch_size=16", "batch_size"]) == 0
    assert capsys.readouterr().out == "# Samples per optimizer step. (integer > 0; default 32)\nbatch_size: 16\n"
    assert main(["config", "trainer.lora.r"]) == 0
    assert "\n    r: 64\n" in capsys.readouterr().out
    assert main(["config", "steps"]) == 0
    assert capsys.readouterr().out.endswith("steps: ???\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["trainer.lrr"], "there is no key 'lrr'; did you mean lr?"),
        (["batch_size.x"], "batch_size.x: there is no key 'x'"),
        (["steps=3"], "give --config FILE"),
    ],
)
def test_renio_config_refuses_a_key_that_is_not_there(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *given]) == 2
    assert said in capsys.readouterr().err


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"renio {__version__}\n"


def test_lists_and_mappings_of_sections_are_printed_as_yaml_that_loads_as_the_same(tmp_path: Path) -> None:
    sources = [{"path": "a.jsonl", "weight": 3, "prompts": {"student": "Q: {problem}"}}, {"path": "b.jsonl", "teacher": "b"}]
    teachers = {name: {"model": "embedded:teacher"} for name in "ab"}
    config = make_config(teacher={}, teachers=teachers, data={"sources": sources})
    path = tmp_path / "config.yaml"
    path.write_text(annotated(config), encoding="utf-8")
    assert load(path) == config
    one = annotated(config, ("data", "sources", "1"))
    assert "b.jsonl" in one
    assert "a.jsonl" not in one
    with pytest.raises(KeyError):
        annotated(config, ("data", "sources", "2"))
    assert "sources: null" in annotated(make_config(), ("data", "sources"))
