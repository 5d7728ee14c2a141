"""Weightings and objectives from a file of the user's own: loaded, checked, explained, and sent to other processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline import cli
from renio_pipeline.config import ConfigError, RunConfig, load, parse, variants
from renio_pipeline.config.own.own_file import OwnClassError
from renio_pipeline.weightings import weighting_of
from renio_pipeline.weightings.step import weigh_step
from tests.unit.conftest import values
from tests.unit.weightings.test_weightings import BATCH

WEIGHTING = """
from __future__ import annotations
import numpy as np
from pydantic import Field, PositiveFloat
from renio_pipeline.weightings import ScoredBatch, State, Weighting, Weights

class ByLength(Weighting):
    power: PositiveFloat = Field(1.0, description="of the length")

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        return Weights(weights=batch.lengths**self.power, state=(state or 0) + 1)
"""
OBJECTIVE = """
from renio_pipeline.objectives import SAMPLED, FewEntries

class Nothing(FewEntries):
    @property
    def payload(self):
        return SAMPLED

    def entries(self, batch):
        return batch.targets[:, None], lambda logprobs, rows: 0 * logprobs[:, 0]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(WEIGHTING)
    return tmp_path / "mine.py"


def config_of(file: Path, cls: str = "ByLength", kind: str = "weighting", **keys: Any) -> RunConfig:
    return parse(values(**{kind: {"type": "custom", "path": f"{file}:{cls}", **keys}}))


def refusal(file: Path, cls: str = "ByLength", kind: str = "weighting", **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(file, cls, kind, **keys)
    return str(caught.value)


def test_a_users_weighting_has_its_own_keys_beside_type_and_path(file: Path) -> None:
    config = config_of(file, power=2)
    found = weigh_step(weighting_of(config), config.pivotal, BATCH, 4)
    assert (found.weights.tolist(), found.state, config.weighting.label) == ([9, 1, 0], 5, "ByLength")
    dumped = config.model_dump(mode="json")["weighting"]
    assert dumped == {"type": "custom", "path": f"{file}:ByLength", "power": 2.0}
    assert parse(values(weighting=dumped)).weighting == config.weighting


def test_a_path_is_relative_to_the_working_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert config_of(Path("mine.py")).weighting.type == "custom"


def test_it_travels_to_a_process_that_does_not_see_the_file(file: Path, tmp_path: Path) -> None:
    config = config_of(file, power=3)
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps((config.weighting, BATCH)))
    file.unlink()
    program = (
        "import pickle, sys; weighting, batch = pickle.load(open(sys.argv[1], 'rb')); "
        "print(weighting.power, weighting.weigh(batch, None).weights.tolist(), weighting.path, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(sent)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"3.0 [27.0, 1.0, 0.0] {file}:ByLength False"
    assert pickle.loads(sent.read_bytes())[0] == config.weighting


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"powr": 2}, "weighting.powr: unknown key; did you mean power?"),
        ({"power": -1}, "weighting.power: Input should be greater than 0 (given: -1)"),
        ({"x": 1}, "weighting.x: unknown key; allowed: path, power, type"),
    ],
)
def test_a_bad_key_of_a_users_class_is_told_as_any_other(file: Path, keys: dict[str, Any], text: str) -> None:
    assert text in refusal(file, **keys)


def test_a_file_or_class_that_cannot_be_used_is_refused_by_its_key(file: Path) -> None:
    assert "weighting.path: required by type custom" in _refused(weighting={"type": "custom"})
    assert f"weighting.path: {file} names no class; expected path.py:Class" in _refused(
        weighting={"type": "custom", "path": str(file)}
    )
    assert "is not a file (relative to" in refusal(file.parent / "none.py")
    assert f"weighting.path: {file} has no class 'Other'" in refusal(file, "Other")
    assert "weighting.path: ScoredBatch in" in refusal(file, "ScoredBatch")
    assert "does not derive from renio_pipeline.weightings.Weighting" in refusal(file, "ScoredBatch")
    assert "does not derive from renio_pipeline.objectives.Objective" in refusal(file, kind="objective")
    file.write_text(WEIGHTING.replace("def weigh", "def wiegh"))
    assert f"weighting.path: ByLength in {file} does not define weigh" in refusal(file)
    file.write_text(WEIGHTING + "\n1 / 0\n")
    assert f"weighting.path: {file} cannot be imported:\nTraceback" in refusal(file)
    assert "ZeroDivisionError" in refusal(file)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("uniform", "weighting: expected a mapping with the key type, got 'uniform'; set weighting.type=uniform"),
        (None, "weighting: expected a mapping with the key type, got None"),
        ({"type": ["renio"]}, "['renio'] is not known; allowed: renio, uniform, iw, confidence_gate, paced, adaptive, custom"),
        ({"type": "a.py:B"}, "custom; a class of your own is weighting.type=custom with weighting.path=path.py:Class"),
    ],
)
def test_a_section_that_chooses_no_class_says_how_to_choose_one(given: Any, text: str) -> None:
    assert text in _refused(weighting=given)


def test_the_fields_of_a_users_class_are_checked_with_their_defaults(file: Path) -> None:
    file.write_text(WEIGHTING.replace("Field(1.0,", "Field(-1.0,"))
    assert "weighting.power: Input should be greater than 0 (given: -1.0)" in refusal(file)
    assert config_of(file, power=2).weighting.type == "custom"
    file.write_text(WEIGHTING.replace("    power:", "    path: str = ''\n    power:"))
    assert f"weighting.path: ByLength in {file} has a field path" in refusal(file)


def test_an_objective_without_a_payload_is_refused_where_it_is_defined(file: Path) -> None:
    file.write_text(OBJECTIVE.replace("def payload", "def paiload"))
    text = refusal(file, "Nothing", "objective")
    assert "TypeError: objective Nothing does not say what the teachers send: define the property payload" in text
    file.write_text(OBJECTIVE.replace("return SAMPLED", "return 'sampled'"))
    assert "the payload of Nothing must be SAMPLED, top_k(k) or HIDDEN" in refusal(file, "Nothing", "objective")
    file.write_text(OBJECTIVE)
    assert config_of(file, "Nothing", "objective").objective.payload.kind == "sampled"


def test_overrides_between_a_users_class_and_another_leave_out_the_keys_that_are_gone(file: Path, tmp_path: Path) -> None:
    given = tmp_path / "run.yaml"
    own = {"type": "custom", "path": f"{file}:ByLength"}
    OmegaConf.save(OmegaConf.create(values(weighting={**own, "power": 2.0})), given)
    assert load(given, ["weighting.type=renio"]).weighting == variants.registered("weighting")["renio"]()
    OmegaConf.save(OmegaConf.create(values(weighting={"type": "renio", "clip": 3.0})), given)
    found = load(given, ["weighting.type=custom", f"weighting.path={own['path']}"]).weighting
    assert found.model_dump() == {**own, "power": 1.0}


def test_every_kind_lists_its_section_classes_with_the_default_first() -> None:
    assert {kind: list(variants.sections(kind)) for kind in variants.KINDS} == {
        "method": ["opd", "opsd", "grpo", "sft"],
        "weighting": ["renio", "uniform", "iw", "confidence_gate", "paced", "adaptive", "custom"],
        "objective": ["top_k_forward_kl", "jsd", "sampled", "uld", "clipped", "nll", "custom"],
    }
    assert "path" in variants.sections("weighting")["custom"].model_fields
    config = parse(values())
    assert all(isinstance(getattr(config, kind), cls) for kind in variants.KINDS for cls in [variants.default(kind).__class__])


def test_no_registered_class_brings_torch() -> None:
    program = (
        "import sys; from renio_pipeline.config import variants; "
        "[variants.sections(kind) for kind in variants.KINDS]; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "False"


def _refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(values(**changes))
    return str(caught.value)


HOOKS = """
from pydantic import model_validator
from renio_pipeline.objectives import SAMPLED, FewEntries
from renio_pipeline.weightings.uniform import Uniform

class Weighs(Uniform):
    type: str = "custom"
    fails: str = ""

    @model_validator(mode="after")
    def _valid(self):
        return self.fail("validator")

    def fail(self, where):
        if self.fails == where:
            return {}["no such key"]
        if self.fails == where + " refuses":
            raise ValueError("weighting.fails: it must be another")
        return self

    def check(self, config):
        self.fail("check")

    @property
    def pivotal(self):
        return 7 if self.fails == "pivotal is a number" else self.fail("pivotal") and None

    def weigh(self, batch, state):
        self.fail("weigh")
        return super().weigh(batch, state)

class Loses(FewEntries):
    type: str = "custom"
    fails: str = ""

    def fail(self, where):
        if self.fails == where:
            raise AttributeError("no such attribute")

    def check(self, config):
        self.fail("check")

    @property
    def payload(self):
        self.fail("payload")
        return SAMPLED

    def on_policy(self):
        self.fail("on_policy")
        return self

    def working_bytes(self, vocab_size):
        self.fail("working_bytes")
        return 1.0

    def entries(self, batch):
        self.fail("entries")
        def per_token(logprobs, rows):
            self.fail("per_token")
            return 0 * logprobs[:, 0]
        return batch.targets[:, None], per_token
"""


@pytest.mark.parametrize(
    ("kind", "cls", "fails", "told"),
    [
        ("weighting", "Weighs", "validator", "a validator of Weighs in"),
        ("weighting", "Weighs", "check", "check of Weighs in"),
        ("weighting", "Weighs", "pivotal", "pivotal of Weighs in"),
        ("objective", "Loses", "check", "check of Loses in"),
        ("objective", "Loses", "payload", "payload of Loses in"),
    ],
)
def test_whatever_a_users_class_raises_while_it_is_checked_names_its_key(
    file: Path, kind: str, cls: str, fails: str, told: str
) -> None:
    file.write_text(HOOKS, encoding="utf-8")
    text = refusal(file, cls, kind, fails=fails)
    error = "KeyError: 'no such key'" if kind == "weighting" else "AttributeError: no such attribute"
    assert f"{kind}.path: {told} {file} raised:\nTraceback" in text
    assert text.endswith(error)
    assert "contextlib" not in text, "only the frames that help"
    assert f'File "{file}", line' in text


def test_what_a_users_class_refuses_by_a_value_error_is_told_as_it_is(file: Path) -> None:
    file.write_text(HOOKS, encoding="utf-8")
    for fails in ("validator refuses", "check refuses", "pivotal refuses"):
        text = refusal(file, "Weighs", fails=fails)
        assert "weighting.fails: it must be another" in text
        assert "Traceback" not in text
    assert "pivotal of Weighs must be a Pivotal or None, got 7" in refusal(file, "Weighs", fails="pivotal is a number")


def test_what_a_users_class_raises_while_a_run_goes_on_names_its_key_too(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from renio_pipeline.models.student import micro_batch_loss
    from renio_pipeline.objectives import trained_objective
    from tests.unit.models.test_student import V, make_model, make_samples

    file.write_text(HOOKS, encoding="utf-8")
    config = config_of(file, "Weighs", fails="weigh")
    with pytest.raises(OwnClassError, match=rf"^weighting.path: weigh of Weighs in {file} raised:\nTraceback"):
        weigh_step(weighting_of(config), config.pivotal, BATCH, None)

    with pytest.raises(OwnClassError, match=r"^objective.path: on_policy of Loses in"):
        trained_objective(config_of(file, "Loses", "objective", fails="on_policy"))
    samples, _ = make_samples()
    for fails in ("entries", "per_token"):
        objective = trained_objective(config_of(file, "Loses", "objective", fails=fails))
        with pytest.raises(OwnClassError, match=r"^objective.path: head_fn of Loses in"):
            micro_batch_loss(
                make_model(), samples, {}, objective=objective, batch_size=8, batch_tokens=8, temperature=1.0, vocab_size=V
            )

    OmegaConf.save(
        values(objective={"type": "custom", "path": f"{file}:Loses", "fails": "working_bytes"}), tmp_path / "run.yaml"
    )
    assert cli.main(["plan", "--config", str(tmp_path / "run.yaml"), "--device", "h100", "pools.trainer.gpus=1"]) == 2
    assert f"error: objective.path: working_bytes of Loses in {file} raised:" in capsys.readouterr().err


def test_a_class_that_pydantic_cannot_extend_is_refused_by_its_key(file: Path) -> None:
    file.write_text(HOOKS + "\nclass Final(Weighs):\n    def __init_subclass__(cls, **more): raise TypeError('final')\n")
    assert f"weighting.path: the definition of Final in {file} raised:" in refusal(file, "Final")
