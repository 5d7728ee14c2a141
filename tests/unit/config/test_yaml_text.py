"""What is written of a configuration is read as itself, whatever text its values hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from renio_pipeline.config import RunConfig, load
from renio_pipeline.config.describe import annotated
from renio_pipeline.config.yaml_text import document, one_line
from renio_pipeline.planning.measured import differences
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.recorded_config import recorded_config
from renio_pipeline.run_dir.resume import check_same_run
from tests.unit.conftest import make_config

REFERENCES = [r"\boxed{${n}}", "${n}", r"\${n}", r"\\${n}", r"\\\${", "${", "a$${x}b", "${oc.env:HOME}", "\\", "x\\"]
NUMBERS = ["1e3", "1_000", "0x1f", "0o7", "1:20", "1e-05", "+1", ".5", "1.", ".inf", "nan", "12e03", "2020-01-01"]
WORDS = ["yes", "No", "y", "on", "null", "~", "", "true", "-", "<<", "=", "!x", "&a", "*a", "# c", " lead", "trail ", "a: b"]
ODD = ["\x85", "\u2028", "\x00", "\ufeff", "\r\n", "'", '"', "{}", "[", "\t", "é", "日本", "👩‍🚀", "?", "@", "%", "|"]
# Not among them: surrogates, which no file can hold, and OmegaConf's mark of a missing value.
any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"])).filter(lambda text: text != "???")
tricky = st.lists(st.sampled_from(["\\", "$", "{", "}", "${", "n", ".", ":", " ", "'", '"', "1", "e"]), max_size=8).map("".join)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
leaves = any_text | tricky.filter(lambda text: text != "???") | numbers
option_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=6
)
for_all = settings(
    deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def config_with(value: Any) -> RunConfig:
    return make_config(task="maths", task_options={"a": value}, generator={"engine": {"b": {"c": [value]}}})


def read_again(text: str, folder: Path) -> RunConfig:
    path = folder / "again.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return load(path)


@for_all
@given(value=option_values)
@example(value=[*REFERENCES, *NUMBERS, *WORDS, *ODD])
@example(value={text: text for text in [*REFERENCES, *NUMBERS, *WORDS, *ODD]})
@pytest.mark.slow
def test_what_a_run_writes_and_what_renio_config_prints_is_read_as_itself(value: Any, tmp_path: Path) -> None:
    config = config_with(value)
    assert read_again(document(config.model_dump(mode="json")), tmp_path) == config
    assert read_again(annotated(config), tmp_path) == config


@for_all
@given(st.one_of(tricky, any_text))
def test_a_value_on_one_line_is_one_line(text: str) -> None:
    if text != "???":
        assert len(one_line({"key": [text]}).splitlines()) == 1


def test_a_recorded_configuration_serves_resume_and_plan(tmp_path: Path) -> None:
    given = make_config(run_dir=str(tmp_path / "run"), task_options={"prompt": r"Answer in \boxed{${n}}, not in \${n}"})
    RunDirectory(given)
    recorded = recorded_config(tmp_path / "run")
    assert recorded == given
    check_same_run(recorded, given)
    assert differences(recorded, given) == []


@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_numbers_without_bound_stay_numbers(number: float, tmp_path: Path) -> None:
    assert read_again(annotated(config_with(number)), tmp_path) == config_with(number)
