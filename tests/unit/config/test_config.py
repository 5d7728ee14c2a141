"""Configurations in and out: the shipped ones load, and what is refused is refused by the name of its key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

from renio_pipeline.config import ConfigError, RunConfig, load, parse, schema, variants
from renio_pipeline.objectives import SAMPLED, trained_objective
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.tasks import make_task
from renio_pipeline.weightings.renio import Renio
from renio_pipeline.weightings.uniform import Uniform
from tests.unit.conftest import make_config, values

ROOT = Path(__file__).parents[3]
SHAPES = [ROOT / "configs/paper/two-nodes.yaml"]  # laid over a preset
CODE = ROOT / "configs/paper/code.yaml"  # so is this
BASELINES = [ROOT / f"configs/paper/qwen3-1.7b-{method}.yaml" for method in ("grpo", "sft")]  # ``test_rewards``, ``test_sft``
EXPERIMENTS = list((ROOT / "configs/study").glob("?.yaml"))  # of another format: see test_study_plan.py
SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path not in [*SHAPES, CODE, *EXPERIMENTS])
RENIO = {"type": "renio", "threshold": 1.0, "clip": 2.0, "temperature": 0.5}
UNION_TAGS = {"renio", "uniform", "top_k_forward_kl", "sampled"}
for_all = settings(deadline=None, derandomize=True)


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "run.yaml"
    OmegaConf.save(OmegaConf.create(values(**changes)), path)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value)


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(values(**changes))
    return str(caught.value)


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models_of(argument)


def sections(model: type[BaseModel] = RunConfig, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every (path of keys, model) of the configuration; a union gives each of its variants."""
    yield path, model
    for name, field in model.model_fields.items():
        variant = not path and name in variants.KINDS
        for inner in variants.registered(name).values() if variant else models_of(field.annotation):
            kinds = {get_origin(a) for a in (field.annotation, *get_args(field.annotation))}
            yield from sections(inner, (*path, name, *(["maths"] if dict in kinds else ["0"] if tuple in kinds else [])))


KEYS = [(path, model, name) for path, model in sections() for name in model.model_fields]


def with_extra(path: tuple[str, ...], model: type[BaseModel], key: str) -> dict[str, Any]:
    """A configuration that is right but for ``key`` in the section at ``path``."""
    whole = values()
    section = whole
    for name, index in pairwise([*path, ""]):
        if name.isdecimal():
            continue
        section = section.setdefault(name, [{}] if index.isdecimal() else {})
        section = section[0] if isinstance(section, list) else section
    if path and "type" in model.model_fields:
        section["type"] = model.model_fields["type"].default
    section |= {name: 1 for name, field in model.model_fields.items() if path and field.is_required()}
    section[key] = 1
    return whole


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_configuration_loads(path: Path) -> None:
    config = load(path)
    assert parse(config.model_dump()) == config


def test_there_are_shipped_configurations_to_load() -> None:
    assert ROOT / "configs/demo.yaml" in SHIPPED


@for_all
@given(st.sampled_from(KEYS), st.data())
def test_a_key_with_a_letter_too_many_is_told_its_right_name(key: Any, data: st.DataObject) -> None:
    path, model, name = key
    at = data.draw(st.integers(0, len(name) - 1))
    misspelt = name[: at + 1] + name[at:]
    with pytest.raises(ConfigError) as caught:
        parse(with_extra(path, model, misspelt))
    full = ".".join([*path, misspelt])
    assert str(caught.value).splitlines()[1:] == [f"  {full}: unknown key; did you mean {name}?"]


def test_a_key_like_no_other_is_told_what_is_allowed() -> None:
    assert "sync.zzzz: unknown key; allowed: backend" in refused(sync={"zzzz": 1})


def test_a_key_with_the_name_of_its_variant_is_an_unknown_key() -> None:
    assert "weighting.renio: unknown key" in refused(weighting={"type": "renio", "renio": 1})
    assert "teacher.vllm: unknown key" in refused(teacher={"model": "m", "vllm": 1})


def test_every_fault_has_a_line_of_its_own() -> None:
    text = refused(stps=1, weighting={"type": "renio", "clipp": 2}, trainer={"lr": -1})
    assert [line.split(":")[0].strip() for line in text.splitlines()] == [
        "configuration",
        "weighting.clipp",
        "trainer.lr",
        "stps",
    ]


@pytest.mark.parametrize("section", ["weighting", "diagnostics"])
@pytest.mark.parametrize("clip", [0.5, 0.4], ids=["equal", "less"])
def test_a_clip_that_is_not_above_the_threshold_is_refused_with_the_reason(section: str, clip: float) -> None:
    variant = {"type": "renio"} if section == "weighting" else {}
    text = refused(**{section: {**variant, "threshold": 0.5, "clip": clip}})
    assert f"clip ({clip}) must be greater than threshold (0.5)" in text
    assert "no token could be pivotal" in text
    assert f"raise {section}.clip or lower {section}.threshold" in text


def test_diagnostics_are_the_weightings_own_unless_they_say_otherwise() -> None:
    renio = {"type": "renio", "threshold": 1.0, "clip": 2.0, "temperature": 0.5}
    assert make_config(weighting=renio).pivotal == schema.Pivotal(threshold=1.0, clip=2.0, temperature=0.5)
    assert make_config(weighting={"type": "uniform"}).pivotal == schema.Pivotal(threshold=0.8, clip=2.5)
    found = make_config(weighting=renio, diagnostics={"threshold": 0.3}).pivotal
    assert found == schema.Pivotal(threshold=0.3, clip=2.0, temperature=0.5)


@pytest.mark.parametrize("key", ["threshold", "clip"])
def test_a_key_that_uniform_had_is_told_where_it_is_now(key: str) -> None:
    text = refused(weighting={"type": "uniform", key: 1.5})
    assert f"weighting: uniform has no {key}: " in text
    assert f"is set by diagnostics.{key}; move the value there" in text


def test_a_clip_just_above_the_threshold_is_accepted() -> None:
    assert make_config(weighting={"type": "renio", "threshold": 0.5, "clip": 0.51}).weighting.clip == 0.51


FAULTS = [
    ({"weighting": {"type": "renio", "temperature": 0}}, "weighting.temperature: "),
    ({"weighting": {"type": "renio", "group_size": 0}}, "weighting.group_size: "),
    ({"weighting": {"type": "renio", "normalization": "mean"}}, "weighting.normalization: "),
    ({"weighting": {"type": "rennio"}}, "weighting.type: 'rennio' is not known; did you mean renio? allowed: renio, uniform,"),
    ({"weighting": {"type": None}}, "weighting.type: None is not known; allowed: renio, uniform, iw"),
    ({"weighting": "renio"}, "weighting: "),
    ({"objective": {"type": "kl"}}, "objective.type: 'kl' is not known; allowed: top_k_forward_kl, jsd, sampled"),
    ({"objective": {"type": "top_k_forward_kl", "k": 0}}, "objective.k: "),
    ({"objective": {"type": "top_k_forward_kl", "entry_clip": 0}}, "objective.entry_clip: "),
    ({"data": {"fields": {"question": "q"}}}, "data.fields.question: "),
    ({"data": {"fields": {"id": 3}}}, "data.fields.id: "),
    ({"trainer": {"betas": [0.9, "x"]}}, "trainer.betas.1: "),
    ({"trainer": {"zero_stage": 4}}, "trainer.zero_stage: "),
    ({"teacher": {}}, "teacher.model: required"),
    ({"steps": 0}, "steps: "),
    ({"name": "a/b"}, "name: "),
    ({"seed": 2**31}, "seed: "),
    ({"sampling": {"top_p": 0}}, "sampling.top_p: "),
]


DTYPES = "allowed: float32, bfloat16"
MEANT = [
    ("generator.dtype=bf16", f"generator.dtype: 'bf16' is not allowed; did you mean bfloat16? {DTYPES}"),
    ("trainer.dtype=fp32", f"trainer.dtype: 'fp32' is not allowed; did you mean float32? {DTYPES}"),
    ("teacher.dtype=torch.bfloat16", f"teacher.dtype: 'torch.bfloat16' is not allowed; did you mean bfloat16? {DTYPES}"),
    ("trainer.dtype=16", f"trainer.dtype: 16 is not allowed; {DTYPES}"),
    *(
        (f"{key}.dtype={name}", f"{key}.dtype: '{name}' is not allowed: half precision overflows without loss scaling, which")
        for key, name in (("generator", "float16"), ("teacher", "fp16"), ("trainer", "Half"), ("teachers.a", "torch.float16"))
    ),
    ("generator.dtype=float16", DTYPES),
    ("placement=collocated", "placement: 'collocated' is not allowed; did you mean colocated? allowed: separate, colocated"),
    ("weighting.type=Uniform", "weighting.type: 'Uniform' is not known; did you mean uniform? allowed: renio, uniform, iw,"),
    ("objective.type=jds", "objective.type: 'jds' is not known; did you mean jsd? allowed: top_k_forward_kl, jsd"),
    ("method.type=opds", "method.type: 'opds' is not known; did you mean opd? allowed: opd, opsd"),
    ("teacher.type=torhc", "teacher.type: 'torhc' is not allowed; did you mean torch? allowed: vllm, torch"),
    ("weighting=unifrom", "weighting: expected a mapping with the key type, got 'unifrom'; set weighting.type=uniform"),
    (
        "sinks=[tensorbord]",
        "sinks.0: 'tensorbord' is not allowed; did you mean tensorboard? allowed: tensorboard, wandb, mlf",
    ),
    ("trainer.zero_stage=5", "trainer.zero_stage: 5 is not allowed; allowed: 0, 1, 2, 3"),
    ("data.fields.problm=x", "data.fields.problm: 'problm' is not allowed; did you mean problem? allowed: id, problem"),
]


@pytest.mark.parametrize(("override", "told"), MEANT, ids=[override for override, _ in MEANT])
def test_a_word_that_is_not_allowed_is_told_what_may_be_meant_and_what_is(override: str, told: str, tmp_path: Path) -> None:
    assert told in refusal(written(tmp_path), override)


def test_a_task_that_is_not_known_is_told_too() -> None:
    with pytest.raises(
        ConfigError, match=r"task: 'arithmetics' is not known; did you mean arithmetic\? allowed: arithmetic, plain"
    ):
        make_task("arithmetics")


@pytest.mark.parametrize(("change", "line"), FAULTS, ids=[line.split(":")[0] for _, line in FAULTS])
def test_a_value_that_is_not_allowed_is_named_by_its_key_in_the_file(change: dict[str, Any], line: str) -> None:
    text = refused(**change)
    (fault,) = text.splitlines()[1:]
    assert fault.startswith(f"  {line}")
    key = fault.split(":")[0].strip()
    assert not UNION_TAGS & set(key.split("."))
    assert "[key]" not in fault


@pytest.mark.parametrize("number", [".nan", ".inf"])
@pytest.mark.parametrize("key", ["weighting.clip", "weighting.threshold", "trainer.lr", "temperature"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, key: str, number: str) -> None:
    assert f"{key}: Input should be a finite number" in refusal(written(tmp_path, weighting=RENIO), f"{key}={number}")


def test_overrides_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    config = load(
        written(tmp_path, weighting=RENIO, trainer={"lr": 0.1, "zero_stage": 3}),
        ["steps=7", "trainer.lr=1e-3", "weighting.clip=3", "pools.teacher.replicas=2", "run_dir=/tmp/x=y"],
    )
    assert (config.steps, config.trainer.lr, config.trainer.zero_stage) == (7, 1e-3, 3)
    assert (config.weighting.threshold, config.weighting.clip) == (1.0, 3.0)
    assert config.pools.teacher.replicas == 2
    assert config.run_dir == "/tmp/x=y"


def test_uniform_over_a_renio_section_drops_the_keys_that_it_does_not_have(tmp_path: Path) -> None:
    config = load(written(tmp_path, weighting=RENIO), ["weighting.type=uniform"])
    assert config.weighting == Uniform()


@pytest.mark.parametrize("override", ["objective.type=sampled", "objective={type: sampled}"])
def test_sampled_over_a_top_k_section_works(tmp_path: Path, override: str) -> None:
    config = load(written(tmp_path, objective={"type": "top_k_forward_kl", "k": 4, "tail": False}), [override])
    assert config.objective == Sampled()
    assert config.objective.payload == SAMPLED


def test_trainers_correct_for_an_older_policy_only_where_there_is_one() -> None:
    sampled = {"type": "sampled", "importance_clip": 3.0}
    assert trained_objective(parse(values(objective=sampled, max_staleness=1))) == Sampled(importance_clip=3.0)
    assert trained_objective(parse(values(objective=sampled))) == Sampled(importance_clip=None)
    config = parse(values())
    assert trained_objective(config) == config.objective


def test_the_same_variant_keeps_every_key(tmp_path: Path) -> None:
    config = load(written(tmp_path, weighting=RENIO), ["weighting.type=renio"])
    assert config.weighting == Renio(threshold=1.0, clip=2.0, temperature=0.5)


@pytest.mark.parametrize("override", ["weighting.threshhold=1", "weighting.temperature=2"])
def test_a_key_that_uniform_has_not_is_refused_when_it_is_given_with_it(tmp_path: Path, override: str) -> None:
    path = written(tmp_path, weighting=RENIO)
    assert f"{override.split('=')[0]}: unknown key" in refusal(path, "weighting.type=uniform", override)


def test_a_misspelt_key_in_the_file_does_not_vanish_with_the_variant(tmp_path: Path) -> None:
    path = written(tmp_path, weighting={**RENIO, "threshhold": 1.5})
    assert "weighting.threshhold: unknown key; allowed: after_pivotal, type" in refusal(path, "weighting.type=uniform")
    assert "weighting.threshhold: unknown key; did you mean threshold?" in refusal(path)


@pytest.mark.parametrize("override", ["steps", "=3", " =3"])
def test_a_malformed_override_is_shown_with_an_example(tmp_path: Path, override: str) -> None:
    text = refusal(written(tmp_path), override)
    assert text == f"override {override!r}: expected key=value, for example steps=10"


def test_an_override_without_a_value_names_its_key(tmp_path: Path) -> None:
    assert "steps: Input should be a valid integer" in refusal(written(tmp_path), "steps=")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.yaml") == f"configuration file {tmp_path / 'no.yaml'} does not exist"
    assert refusal(tmp_path) == f"configuration file {tmp_path} is a folder"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"steps: [1", "parsing a flow sequence"),
        (b"steps: 1\nsteps: 2", "duplicate key steps"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"3", "int"),
        (b"- steps", "expected a mapping of keys, got list"),
        (b"", "steps: required"),
        (b"name: ${nowhere}", "nowhere"),
        (b"steps: ???", "steps"),
    ],
    ids=["unclosed", "duplicate", "bytes", "number", "list", "empty", "interpolation", "placeholder"],
)
def test_a_file_that_is_no_yaml_mapping_is_refused_by_its_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    text = refusal(path)
    assert text.startswith(f"{path}:")
    assert message in text


def owned() -> Iterator[tuple[str, str, str]]:
    for section in ("generator.engine", "teacher.engine"):
        yield from ((section, key, setting) for key, setting in schema.OWNED_ENGINE_KEYS.items())
    yield from (("trainer.deepspeed", key, setting) for key, setting in schema.OWNED_DEEPSPEED_KEYS.items())


@pytest.mark.parametrize(("section", "key", "setting"), list(owned()))
def test_an_engine_option_that_the_pipeline_owns_is_refused_with_a_key_that_exists(
    tmp_path: Path, section: str, key: str, setting: str
) -> None:
    text = refusal(written(tmp_path), f"{section}.{key}=1")
    assert f"{section}.{key} is set by the pipeline itself" in text
    instead = re.search(r"; set (.*) instead", text)
    assert bool(instead) == bool(setting)
    known = {".".join([*path, name]) for path, _, name in KEYS}
    if instead is not None:
        assert set(re.findall(r"[a-z][a-z_.]+[a-z]|objective.k", instead[1])) - {"or"} <= known


def test_engine_options_that_nobody_owns_pass_through(tmp_path: Path) -> None:
    zero = {"zero_optimization": {"overlap_comm": True}}
    config = load(written(tmp_path, trainer={"deepspeed": zero}), ["generator.engine.max_num_seqs=8"])
    assert config.generator.engine == {"max_num_seqs": 8}
    assert config.trainer.deepspeed == zero


@pytest.mark.parametrize("backend", ["nccl", "ipc"])
@pytest.mark.parametrize("with_gpus", [[], ["generator"], ["trainer"]])
def test_a_gpu_transport_needs_gpus_on_both_ends(backend: str, with_gpus: list[str]) -> None:
    text = refused(sync={"backend": backend}, pools={name: {"gpus": 1} for name in with_gpus})
    assert f"sync.backend '{backend}' moves weights between GPUs" in text
    assert "use host" in text


def test_a_gpu_transport_with_gpus_is_accepted() -> None:
    config = make_config(sync={"backend": "nccl"}, pools={"generator": {"gpus": 1}, "trainer": {"gpus": 1}})
    assert config.sync.backend == "nccl"


@pytest.mark.parametrize(("generator", "trainer"), [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "bfloat16")])
def test_deterministic_with_bf16_on_either_side_is_refused(generator: str, trainer: str) -> None:
    text = refused(deterministic=True, generator={"dtype": generator}, trainer={"dtype": trainer})
    assert "deterministic needs generator.dtype and trainer.dtype float32" in text


def test_deterministic_in_float32_is_accepted() -> None:
    assert make_config(deterministic=True, generator={"dtype": "float32"}, trainer={"dtype": "float32"}).deterministic


def test_a_batch_of_broken_prompt_groups_is_refused() -> None:
    text = refused(batch_size=6, samples_per_prompt=4)
    assert "batch_size (6) must be a multiple of samples_per_prompt (4)" in text
    assert make_config(batch_size=8, samples_per_prompt=4).batch_size == 8


def test_gpus_of_a_replica_must_be_its_tensor_parallel_size() -> None:
    text = refused(generator={"tensor_parallel": 2}, pools={"generator": {"gpus": 1}})
    assert "pools.generator.gpus (1.0) must equal generator.tensor_parallel (2)" in text


def test_a_configuration_is_frozen() -> None:
    config = make_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.trainer.lr = 2.0  # type: ignore[misc]


def test_the_run_directory_is_named_after_the_run_unless_it_is_given() -> None:
    assert make_config(name="a").directory == Path("runs/a")
    assert make_config(name="a", run_dir="/x").directory == Path("/x")


def test_values_of_the_environment_may_be_numbers() -> None:
    config = parse(values(pools={"generator": {"env": {"NCCL_DEBUG_LEVEL": 3}}, "weighting": {"env": {"A": 1}}}))
    assert config.pools.generator.env == {"NCCL_DEBUG_LEVEL": "3"}
    assert config.pools.weighting.cpus == 0.1, "setting one key of the weighting actor changed another"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weighting": {"type": "renio", "temperature": 0.01}}, "would overflow"),
        ({"trainer": {"betas": [2, 3]}}, "trainer.betas"),
        ({"trainer": {"warmup_steps": 10**6}}, "trainer.warmup_steps"),
        ({"weighting": {"type": "renio", "group_size": 7}}, "weighting.group_size (7) must divide batch_size"),
        ({"pools": {"trainer": {"cpus": 0}}}, "pools.trainer.cpus and pools.trainer.gpus are both 0"),
        ({"pools": {"weighting": {"replicas": 3}}}, "pools.weighting.replicas: unknown key"),
        ({"method": {"type": "opsd"}, "teacher": {"model": "another"}}, "in opsd the teacher is the student itself"),
        ({"teacher": {"model": None}}, "teacher.model: required"),
        ({"objective": {"type": "jsd"}, "method": {"type": "opsd", "teacher": "latest"}, "teacher": {"model": None}},
         "method.teacher latest with objective.type jsd needs teacher.type=torch"),
        ({"method": {"type": "opd", "decay": 0.9}}, "method.decay: unknown key"),
        ({"method": {"type": "opsd", "teacher": "ema"}}, "whose weights it may take over; leave teacher.model out"),
        ({"teacher": {"model": "x", "attention": "flash_attention_2"}}, "teacher.attention is a torch teacher's"),
        ({"teacher": {"model": "x", "type": "torch", "tensor_parallel": 2}}, "set teacher.type=vllm"),
    ],
)  # fmt: skip
def test_values_that_would_only_fail_later_are_refused(change: dict[str, Any], text: str) -> None:
    assert text in refused(**change)


PAPER = {  # arXiv 2606.23104: student, method, clip, threshold, entry clip, largest gradient norm
    "qwen3-1.7b-opd": ("Qwen/Qwen3-1.7B", "opd", 2.0, 1.0, 0.05, 1.0),
    "qwen3-1.7b-opsd": ("Qwen/Qwen3-1.7B", "opsd", 2.5, 0.8, 0.05, 1.0),
    "qwen3-4b-opsd": ("Qwen/Qwen3-4B", "opsd", 2.0, 0.01, 0.05, 0.1),
    "qwen3-8b-opsd": ("Qwen/Qwen3-8B", "opsd", 2.0, 0.01, 0.06, 0.1),
}


@pytest.mark.parametrize("shape", [None, *SHAPES], ids=["8 GPUs", "2 nodes"])
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_presets_say_what_the_paper_says(name: str, shape: Path | None) -> None:
    student, method, clip, threshold, entry_clip, norm = PAPER[name]
    preset = ROOT / f"configs/paper/{name}.yaml"
    c = load([preset, shape] if shape else preset)
    assert (c.student, c.method.type, c.weighting.clip, c.weighting.threshold) == (student, method, clip, threshold)
    assert (c.objective.type, c.objective.beta, c.objective.entry_clip) == ("jsd", 0.0, entry_clip)
    assert (c.weighting.normalization, c.weighting.temperature) == ("batch_mean", 1.0)
    assert (c.temperature, c.sampling.temperature, c.sampling.top_p, c.sampling.top_k) == (1.1, 1.1, 0.95, 20)
    assert (c.max_response_tokens, c.batch_size, c.steps, c.data.student_prompt) == (1024, 32, 126, "plain")
    t = c.trainer
    assert (t.lr, t.schedule, t.warmup_steps, t.weight_decay, t.max_grad_norm) == (5e-6, "linear", 0, 0.0, norm)
    assert (t.dtype, t.zero_stage, t.gradient_checkpointing, t.lora.r, t.lora.alpha) == ("bfloat16", 2, True, 64, 128)
    assert set(t.lora.targets) == {f"{m}_proj" for m in ("q", "k", "v", "o", "gate", "up", "down")}
    gpus = sum(c.pool(pool).gpus * c.pool(pool).replicas for pool in c.pool_names)
    assert gpus == (16 if shape else 8)


def test_there_is_a_preset_for_every_row_and_no_other() -> None:
    assert {p.stem for p in (ROOT / "configs/paper").iterdir()} == PAPER.keys() | {p.stem for p in (*SHAPES, CODE, *BASELINES)}


@pytest.mark.parametrize("name", PAPER)
def test_code_changes_the_task_its_data_and_its_words_and_nothing_else(name: str) -> None:
    preset = ROOT / f"configs/paper/{name}.yaml"
    maths, code = load(preset), load([preset, CODE])
    assert (code.task, code.data.preset, code.data.student_prompt) == ("code", "openthoughts-code", "plain")
    own = {"task", "task_options", "data", "prompts"}
    assert maths.model_dump(exclude=own) == code.model_dump(exclude=own)


def test_of_several_files_later_ones_count_and_overrides_last(tmp_path: Path) -> None:
    first = written(tmp_path, steps=3, weighting=RENIO, pools={"generator": {"replicas": 2, "cpus": 3}})
    (tmp_path / "more.yaml").write_text("steps: 4\npools: {generator: {replicas: 5}}\nweighting: {type: uniform}\n")
    found = load([first, tmp_path / "more.yaml"], ["seed=7"])
    assert (found.steps, found.seed, found.weighting.type) == (4, 7, "uniform")
    assert (found.pools.generator.replicas, found.pools.generator.cpus) == (5, 3)
    assert load([first, tmp_path / "more.yaml"], ["steps=9"]).steps == 9
    assert load(first, ["teachers={maths: {model: a/b}}"]).all_teachers.keys() == {"maths"}
    with pytest.raises(ConfigError, match=r"run.yaml \+ .*more.yaml:\n  stepz: unknown key; did you mean steps\?"):
        load([first, tmp_path / "more.yaml"], ["stepz=9"])
    with pytest.raises(ConfigError, match=r"configuration file .*none.yaml does not exist"):
        load([first, tmp_path / "none.yaml"])


def test_a_section_without_a_type_is_the_default_one() -> None:
    config = make_config(weighting={"clip": 3.0}, objective={"k": 7}, method={"privileged": True})
    assert (config.weighting.type, config.objective.type, config.method.type) == ("renio", "top_k_forward_kl", "opd")
    assert config.weighting == make_config(weighting={"type": "renio", "clip": 3.0}).weighting
    assert config.objective.payload.top_k == 7
