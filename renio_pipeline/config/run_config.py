"""A whole run's configuration, frozen: the sections of ``schema/`` and the keys that belong to none of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    SerializeAsAny,
    model_validator,
)

from renio_pipeline.config import schema, variants
from renio_pipeline.config.mixture import Part, Recipe, TaskMix, parts
from renio_pipeline.config.own.own_copies import OwnFiles
from renio_pipeline.config.own.own_file import OwnFile, is_own
from renio_pipeline.config.paths import UserPath, own_directory
from renio_pipeline.config.schema import Section
from renio_pipeline.config.sections import NO_TEACHER, ObjectiveSection, WeightingSection


class RunConfig(Section):
    """One run. Each section's keys are in ``renio_pipeline.config.schema``."""

    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the run: of its directory, of its live actor, and of its metrics.",
    )
    run_dir: UserPath | None = Field(
        None, description="Directory of the run; null: runs/NAME, and on a running cluster ~/renio-runs/NAME."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="Seed of everything drawn at random: the order of prompts, sampling, initial LoRA factors.",
    )
    steps: PositiveInt = Field(description="Optimizer steps of the run.")
    batch_size: PositiveInt = Field(32, description="Samples per optimizer step.")
    samples_per_prompt: PositiveInt = Field(1, description="Responses drawn per problem.")
    max_response_tokens: PositiveInt = Field(
        1024, description="Longest response, in tokens; longer ones are cut and still trained on."
    )
    temperature: PositiveFloat = Field(
        1.0, description="Distillation temperature τ: divides the logits of student and teacher alike."
    )
    deterministic: bool = Field(
        False, description="Repeat a run digit for digit (CPU, float32): fixed batches and replicas, no autoscaling."
    )
    max_staleness: NonNegativeInt = Field(
        0, description="Weight versions that generation may lag behind the trainer; 0: strictly on-policy."
    )
    in_flight: Literal["drain", "keep"] = Field(
        "drain",
        description="Responses in flight at a weight sync: drain waits for them, keep changes the weights beneath them.",
    )
    placement: Literal["separate", "colocated"] = Field(
        "separate", description="colocated: a generator and a trainer rank share each GPU and take turns."
    )
    student_logprobs: Literal["generator", "trainer"] = Field(
        "generator", description="Whose log p_S the weights use: the generator's own, or one more forward pass by the trainer."
    )
    filter: Literal["all", "correct", "incorrect"] = Field("all", description="Train only on samples with this verdict.")
    filter_batch: Literal["refill", "shrink"] = Field(
        "refill", description="refill: draw more prompts until batch_size samples are kept; shrink: train on fewer."
    )
    unfinished: bool = Field(False, description="Let filter: incorrect also take responses without a final answer.")
    student: UserPath = Field(description="The student: a model folder, a hub name, or embedded:student.")
    task: UserPath = Field(
        "arithmetic", description="How problems are asked and answers judged: a registered task, or your own as path.py:Class."
    )
    task_options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the task's constructor.")
    data: schema.Data = schema.Data()
    prompts: schema.Prompts = schema.Prompts()
    template: schema.TemplateOptions = schema.TemplateOptions()
    sampling: schema.Sampling = schema.Sampling()
    method: Annotated[schema.Opd | schema.Opsd | schema.Grpo | schema.Sft, BeforeValidator(variants.validator("method"))] = (
        schema.Opd()
    )
    reward: schema.Reward = schema.Reward()
    weighting: Annotated[SerializeAsAny[WeightingSection], BeforeValidator(variants.validator("weighting"))] = Field(
        default_factory=partial(variants.default, "weighting")
    )
    objective: Annotated[SerializeAsAny[ObjectiveSection], BeforeValidator(variants.validator("objective"))] = Field(
        default_factory=partial(variants.default, "objective")
    )
    diagnostics: schema.Diagnostics = schema.Diagnostics()
    generator: schema.Generator = schema.Generator()
    teacher: schema.Teacher = schema.Teacher()
    teachers: dict[str, schema.Teacher] | None = Field(
        None, description="Several teachers by name instead of `teacher`; each row names the one that scores it."
    )
    combine: dict[str, float] | None = Field(
        None,
        description="Let all of `teachers` score each sample, and mix their probabilities by these weights (divided by their "
        "sum): {maths: 0.7, code: 0.3}; null: each row names its one teacher.",
    )
    trainer: schema.Trainer = schema.Trainer()
    sync: schema.Sync = schema.Sync()
    payload: schema.Payload = schema.Payload()
    pools: schema.Pools = schema.Pools()
    evaluate: schema.Evaluate = schema.Evaluate()
    checkpoint: schema.Checkpoint = schema.Checkpoint()
    samples: schema.Samples = schema.Samples()
    faults: schema.Faults = schema.Faults()
    metrics_port: int | None = Field(
        None, ge=0, lt=2**16, description="Port of the Prometheus endpoint on the driver's node; 0: any free port; null: none."
    )
    metrics_discovery: UserPath | None = Field(
        None, description="Folder in which the run announces its endpoint, for Prometheus' file_sd_configs."
    )
    sinks: schema.Sinks = Field((), description="Where metrics go besides metrics.jsonl and Prometheus.")
    wandb: schema.Wandb = schema.Wandb()
    mlflow: schema.Mlflow = schema.Mlflow()
    trackio: schema.Trackio = schema.Trackio()
    swanlab: schema.Swanlab = schema.Swanlab()
    trace: schema.Trace = schema.Trace()

    _own_files: OwnFiles = PrivateAttr(default_factory=OwnFiles)

    def model_post_init(self, context: Any) -> None:
        """``context``: what ``variants.validator`` takes for it."""
        if isinstance(context, OwnFiles):
            self._own_files = context

    @property
    def task_source(self) -> str | OwnFile:
        """What ``renio_pipeline.tasks.make_task`` makes the task from. Raises ConfigError if a user's file is not there."""
        return self._own_files.read(self.task, "task") if is_own(self.task) else self.task

    @property
    def task_recipe(self) -> Recipe:
        """The arguments of ``make_task`` for the run's task; of several sources, each one's. Raises as ``task_source`` does."""
        if not (mixed := parts(self.data)):
            return self.task_source, self.task_options
        return TaskMix({part.name: (self._source_task(part), self._source_options(part)) for part in mixed}), {}

    def _source_task(self, part: Part) -> str | OwnFile:
        given = part.section.task
        if given is None:
            return self.task_source
        return self._own_files.read(given, f"{part.key}.task") if is_own(given) else given

    def _source_options(self, part: Part) -> dict[str, Any]:
        if part.section.task_options is not None:
            return part.section.task_options
        return self.task_options if part.section.task in (None, self.task) else {}

    @property
    def task_label(self) -> str:
        """The task as people are told it; of several sources, each one's: ``maths (gsm8k), code (mbpp)``."""
        mixed = parts(self.data)
        return ", ".join(f"{part.section.task or self.task} ({part.name})" for part in mixed) or self.task

    @property
    def own_files(self) -> dict[str, OwnFile]:
        """The users' files that the run executes, by the key that names each. Raises ConfigError as ``task_source`` does."""
        mixed = parts(self.data)
        tasks = {f"{part.key}.task": self._source_task(part) for part in mixed if part.section.task is not None}
        if not mixed or any(part.section.task is None for part in mixed):
            tasks["task"] = self.task_source
        found: dict[str, object] = tasks | {
            f"{kind}.path": getattr(getattr(self, kind), "file", None) for kind in variants.PACKAGES
        }
        return {key: file for key, file in found.items() if isinstance(file, OwnFile)}

    @property
    def directory(self) -> Path:
        return Path(self.run_dir or own_directory(self.name))

    @property
    def directory_key(self) -> str:
        """The key that names the directory, for messages."""
        return "run_dir" if self.run_dir else "name"

    @property
    def pivotal(self) -> schema.Pivotal:
        """What metrics, samples and reports count as a pivotal token: see ``diagnostics``."""
        own = {"threshold": self.diagnostics.threshold, "clip": self.diagnostics.clip}
        given = {key: value for key, value in own.items() if value is not None}
        return (self.weighting.pivotal or schema.Pivotal()).model_copy(update=given)

    @property
    def all_teachers(self) -> dict[str, schema.Teacher]:
        """Each teacher by the name that rows are routed by; a single one's is empty. None for an objective without any."""
        if self.objective.payload == NO_TEACHER:
            return {}
        return self.teachers or {"": self.teacher}

    @property
    def recorded_teachers(self) -> dict[str, str]:
        """The folder of each teacher whose signals were recorded, and which nothing is started for."""
        return {name: teacher.path or "" for name, teacher in self.all_teachers.items() if teacher.type == "recorded"}

    @property
    def live_teachers(self) -> dict[str, schema.Teacher]:
        """The teachers that score, each in a pool of its own."""
        return {name: teacher for name, teacher in self.all_teachers.items() if teacher.type != "recorded"}

    @property
    def own_tokenizers(self) -> list[str]:
        """The teachers that read responses in tokens of their own."""
        return [name for name, teacher in self.all_teachers.items() if teacher.tokenizer == "own"]

    @property
    def routed(self) -> bool:
        """Whether each row names the teacher that scores it."""
        return self.teachers is not None and self.combine is None

    @property
    def mixture(self) -> dict[str, float]:
        """The weights of ``combine``, which sum to 1; empty without it."""
        total = sum((self.combine or {}).values())
        return {name: weight / total for name, weight in (self.combine or {}).items()}

    @property
    def teachers_of_a_sample(self) -> int:
        """How many teachers score each sample."""
        return len(self.combine or {}) or 1

    def teacher_model(self, name: str = "") -> str:
        """What a teacher's pool loads at first: for opsd, and the reference of grpo, the student itself."""
        return self.all_teachers[name].model or self.student

    def teacher_label(self, name: str = "") -> str:
        """A teacher as people are told it."""
        teacher = self.all_teachers[name]
        return teacher.model or f"recorded in {teacher.path}" if teacher.type == "recorded" else self.teacher_model(name)

    def teacher_key(self, name: str, key: str = "") -> str:
        """A teacher's section, or a key of it, as the user writes it: ``teacher.dtype`` or ``teachers.maths.dtype``."""
        section = f"teachers.{name}" if self.teachers else "teacher"
        return f"{section}.{key}" if key else section

    def pool(self, name: str) -> schema.AnyPool:
        """A pool by its name: ``generator``, ``teacher``, ``teacher.maths``, ``trainer``, ``weighting``."""
        kind, _, teacher = name.partition(".")
        pool: schema.AnyPool = getattr(self.pools, kind)
        return self.pools.teachers.get(teacher, pool) if teacher else pool

    def pool_key(self, name: str) -> str:
        """Where the user writes a pool's keys, below ``pools``."""
        kind, _, teacher = name.partition(".")
        return f"teachers.{teacher}" if teacher in self.pools.teachers else kind

    @property
    def teacher_pools(self) -> dict[str, str]:
        """The name of the pool of each teacher that has one."""
        return {name: f"teacher.{name}" if name else "teacher" for name in self.live_teachers}

    @property
    def pool_names(self) -> list[str]:
        generator, weighting = ["generator"] * self.generates, ["weighting"] * self.distils
        return [*generator, *self.teacher_pools.values(), "trainer", *weighting]

    @property
    def autoscaled(self) -> dict[str, schema.Autoscale]:
        """The pools that follow the load, and between which sizes."""
        pools = {name: self.pool(name) for name in self.pool_names}
        return {n: p.autoscale for n, p in pools.items() if isinstance(p, schema.Pool) and p.autoscale is not None}

    @property
    def privileged(self) -> bool:
        """Whether the teacher is shown the reference solution."""
        return isinstance(self.method, schema.Opsd) or (isinstance(self.method, schema.Opd) and self.method.privileged)

    @property
    def distils(self) -> bool:
        """Whether the student learns from a teacher, of whose scores weights are made."""
        return isinstance(self.method, schema.Opd | schema.Opsd)

    @property
    def reason_first(self) -> schema.ReasonFirst | None:
        """How the teacher writes analyses before it scores, if it does."""
        return self.method.reason_first if isinstance(self.method, schema.Opd | schema.Opsd) else None

    @property
    def passes(self) -> int:
        """Optimizer steps on each batch."""
        return self.method.passes if isinstance(self.method, schema.Grpo) else 1

    @property
    def on_solutions(self) -> bool:
        """Whether every response is its row's solution, and the student writes none to learn from."""
        return isinstance(self.method, schema.Sft)

    @property
    def writes(self) -> bool:
        """Whether the student writes what it learns from: else it learns from solutions, or from recordings alone."""
        return not self.on_solutions and (not self.distils or bool(self.live_teachers))

    @property
    def generates(self) -> bool:
        """Whether the student writes anything: to learn from, or for an evaluation."""
        return self.writes or bool(self.evaluate.problems)

    @property
    def off_policy_share(self) -> float:
        """Share of the samples whose responses are not the student's."""
        return 1.0 if self.on_solutions else self.data.off_policy.share

    @property
    def trains_on_solutions(self) -> bool:
        """Whether any response is its row's solution."""
        off_policy = self.data.off_policy
        return self.on_solutions or (off_policy.share > 0 and off_policy.source == "solution")

    @property
    def rewarded(self) -> bool:
        """Whether the student learns from the verifier's rewards."""
        return isinstance(self.method, schema.Grpo) or bool(self.reward.coefficient)

    @property
    def follow(self) -> schema.Opsd | None:
        """The method, if its teacher's weights follow the student's during the run."""
        return self.method if isinstance(self.method, schema.Opsd) and self.method.teacher != "fixed" else None

    @model_validator(mode="before")
    @classmethod
    def _sections_of_the_method(cls, values: Any) -> Any:
        """A method's own objective and weighting, where the configuration chooses none."""
        method = variants.chosen_or_none("method", values.get("method")) if isinstance(values, dict) else None
        if method is None or not issubclass(method, schema.Method):
            return values
        given = {name: values.get(name) or {} for name in method.sections}
        return values | {
            name: {**method.sections[name], **section} for name, section in given.items() if isinstance(section, dict)
        }

    @model_validator(mode="before")
    @classmethod
    def _pools_of_teachers(cls, values: Any) -> Any:
        """What a teacher's own pool does not say, ``pools.teacher`` says."""
        pools = values.get("pools") if isinstance(values, dict) else None
        if not isinstance(pools, dict) or not isinstance(own := pools.get("teachers"), dict):
            return values
        shared = pools.get("teacher")
        shared = shared if isinstance(shared, dict) else {}
        inherited = {name: {**shared, **pool} if isinstance(pool, dict) else pool for name, pool in own.items()}
        return {**values, "pools": {**pools, "teachers": inherited}}
