"""The model card: metadata that the hub reads, and what a reader needs to know of how the model was made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from renio_pipeline import __version__
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import parts
from renio_pipeline.models.info import EMBEDDED, is_local
from renio_pipeline.publish.markdown import code_block, plain, table
from renio_pipeline.publish.source import Published

PAPER = "https://arxiv.org/abs/2606.23104"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# metrics.jsonl's names for the figures of the first and the last step, and ours
FIGURES = {
    "loss": "loss", "divergence": "divergence from the teacher", "reward/accuracy": "accuracy on training problems",
    "pivotal/fraction": "share of pivotal tokens", "weights/effective_sample_size": "effective sample size",
    "response/tokens": "tokens of a response", "response/truncated": "share of truncated responses",
}  # fmt: skip


def model_card(published: Published, repo: str, *, license: str | None = None) -> str:
    """The text of ``README.md``.

    Args:
        repo: the repository's name, ``user/name``.
        license: an identifier that the hub knows, such as apache-2.0.

    Raises:
        ConfigError: the hub would not accept the metadata.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    config, name = published.config, repo.rpartition("/")[2]
    adapter = published.kind == "adapter"
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out",
            dataset_name=f"held-out problems of task {_tasks(config)}",
            metric_type="accuracy",
            metric_value=line["accuracy"],
            metric_config=f"after step {line['step']}; 95 % interval {line['low']:.4f} to {line['high']:.4f}",
        )
        for line in published.evaluations[-1:]
    ]
    sources = [config.data.path, *(source.path for source in config.data.sources or ())]
    try:
        data = ModelCardData(
            base_model=published.base,
            base_model_relation=("adapter" if adapter else "finetune") if published.base else None,
            datasets=[path for path in sources if path and _on_hub(path)] or None,
            eval_results=results or None,
            library_name="peft" if adapter else "transformers",
            license=license,
            model_name=name,
            pipeline_tag="text-generation",
            tags=[*_kinds(config), config.method.type, "renio-pipeline"],
        )
        text = "\n\n".join(_body(published, repo))
        return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))
    except ValueError as error:
        raise ConfigError(f"the model card's metadata would be refused: {error}") from None


def _kinds(config: RunConfig) -> list[str]:
    """What the model is found by: how it was trained."""
    on_policy = ["on-policy-distillation"] if not config.recorded_teachers else []
    return [
        *([*on_policy, "distillation", config.weighting.type] if config.distils else []),
        *(["reinforcement-learning"] if config.rewarded else []),
        *(["supervised-fine-tuning"] if config.on_solutions else []),
    ]


def _body(published: Published, repo: str) -> Iterator[str]:
    config = published.config
    what = "LoRA adapter" if published.kind == "adapter" else "model"
    teachers = " and ".join(dict.fromkeys(_shown(_teacher(config, t)) for t in config.all_teachers))
    method = "itself, shown the reference solution" if config.method.type == "opsd" else teachers
    yield f"# {plain(repo.rpartition('/')[2])}"
    start = f"This {what} is {_shown(published.base or config.student)} after {published.step} steps of "
    made = f"Made with ReNIO pipeline {plain(__version__)}."
    if config.distils:
        yield start + _distilled(config, method) + made
    elif config.on_solutions:
        yield f"{start}**supervised fine-tuning** on the reference solutions of its problems. {made}"
    else:
        yield (
            f"{start}**reinforcement learning** by group relative policy optimisation: it wrote responses, a verifier judged "
            f"them, and those that were better than the others to the same problem became likelier. {made}"
        )
    yield "## Use"
    yield code_block(_usage(published, repo), "python")
    yield "## Training"
    yield table(("setting", "value"), _settings(published))
    yield from _results(published)
    yield from _origin(published)


def _distilled(config: RunConfig, teacher: str) -> str:
    rewards = ", and the verifier's rewards beside that" if config.rewarded else ""
    weighted = f"Responses were weighted by `{config.weighting.type}` ([ReNIO]({PAPER}) is the paper's weighting). "
    if config.recorded_teachers:
        some = "all" if not config.live_teachers else "some"
        return (
            f"**distillation** from {teacher}: {some} of the responses, and the probability that the teacher gave each of "
            f"their tokens, were recorded before the training, and it was trained towards the teacher. {weighted}"
        )
    return (
        f"**on-policy distillation** from {teacher}: it wrote responses, the teacher gave the probability of each of their "
        f"tokens, and it was trained towards the teacher{rewards}. {weighted}"
    )


def _teacher(config: RunConfig, name: str) -> str:
    """A teacher's name; without the folder of a recording, which is nobody's business."""
    recorded = name in config.recorded_teachers and config.all_teachers[name].model is None
    return "a recorded teacher" if recorded else config.teacher_label(name)


def _settings(published: Published) -> Iterator[tuple[str, object]]:
    config, lora = published.config, published.config.trainer.lora
    teachers = dict.fromkeys(_teacher(config, t) for t in config.all_teachers)
    yield "base model", published.base or _local(config.student)
    if config.distils:
        yield "teacher", ", ".join(map(_local, teachers)) + (", shown the reference solution" if config.privileged else "")
    yield "method", config.method.type if config.distils else _variant(config.method)
    if config.distils:
        yield "weighting", _variant(config.weighting)
    yield "objective", _variant(config.objective)
    yield "task", _tasks(config)
    yield "steps", f"{published.step} of {config.steps}"
    yield "batch", f"{config.batch_size} responses a step, {config.samples_per_prompt} a problem"
    yield "responses", f"up to {config.max_response_tokens} tokens, {_written(config)}"
    yield "learning rate", f"{config.trainer.lr:g}, {config.trainer.schedule}"
    yield "parameters", f"LoRA of rank {lora.r}, alpha {lora.alpha}" if lora else "all"
    yield "data type", config.trainer.dtype
    yield "seed", config.seed


def _written(config: RunConfig) -> str:
    """Where the responses come from."""
    if config.on_solutions:
        return "solutions"
    sampled = f"sampled at temperature {config.sampling.temperature:g}"
    if config.recorded_teachers:
        return f"{sampled} or recorded before" if config.live_teachers else "recorded before"
    return sampled


def _results(published: Published) -> Iterator[str]:
    config = published.config
    if published.evaluations:
        yield "## Results"
        yield f"Accuracy on held-out problems, sampled at temperature {config.evaluate.temperature:g}, with its 95 % interval."
        yield table(("after step", "accuracy", "interval", "problems", "tokens of a response"), _accuracy(published))
    trained = [line for line in published.metrics if "loss" in line]
    if trained:
        first, last = trained[0], trained[-1]
        yield "## Figures of the run"
        shown = [(text, key) for key, text in FIGURES.items() if key in first and key in last]
        head = ("", f"step {first['step']:g}", f"step {last['step']:g}")
        yield table(head, [(text, f"{first[key]:.4g}", f"{last[key]:.4g}") for text, key in shown])


def _accuracy(published: Published) -> Iterator[tuple[object, ...]]:
    for e in _ends(published.evaluations):
        interval = f"{e['low']:.1%} to {e['high']:.1%}"
        yield e["step"], f"{e['accuracy']:.1%}", interval, e["problems"], f"{e['response_tokens']:.0f}"


def _ends(lines: list[dict[str, Any]], most: int = 12) -> list[dict[str, Any]]:
    """At most this many of the lines, the first and the last among them."""
    if len(lines) <= most:
        return lines
    return [lines[round(i * (len(lines) - 1) / (most - 1))] for i in range(most)]


def _origin(published: Published) -> Iterator[str]:
    yield "## How it was made"
    if not published.starts:
        yield "The run was made by an earlier version, which kept neither its command nor the versions of its libraries."
        return
    yield "The configuration was this command's:" if len(published.starts) == 1 else "Started, and resumed, by these commands:"
    yield code_block("\n".join(line["command"] for line in published.starts), "bash")
    yield table(("library", "version"), published.starts[-1]["versions"].items())


def _usage(published: Published, repo: str) -> str:
    if published.kind == "model":
        load = f'model = AutoModelForCausalLM.from_pretrained("{repo}", dtype="auto")'
        return _usage_of(load, repo, "from transformers import AutoModelForCausalLM, AutoTokenizer")
    base = published.base or "FOLDER_OF_THE_BASE_MODEL"
    load = f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}", dtype="auto"), "{repo}")'
    return _usage_of(load, base, "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer")


def _usage_of(load: str, tokenizer: str, imports: str) -> str:
    return (
        f"{imports}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")\n'
        f"{load}\n"
        'messages = [{"role": "user", "content": "What is 17 * 23?"}]\n'
        'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=512)[0]))"
    )


def _on_hub(name: str) -> bool:
    return bool(_HUB_NAME.fullmatch(name)) and not is_local(name)


def _tasks(config: RunConfig) -> str:
    """The task; of several sources, each one's."""

    def short(task: str) -> str:
        return _local(task) if task.endswith(".py") or ".py:" in task else task

    each = (f"{short(part.section.task or config.task)} ({part.name})" for part in parts(config.data))
    return ", ".join(each) or short(config.task)


def _local(name: str) -> str:
    """A folder by its last part alone: where it lay is nobody's business."""
    return name.rstrip("/").rpartition("/")[2] if is_local(name) and not name.startswith(EMBEDDED) else name


def _shown(name: str) -> str:
    return f"[{plain(name)}](https://huggingface.co/{name})" if _on_hub(name) else plain(_local(name))


def _variant(section: Any) -> str:
    values = section.model_dump(mode="json")
    if section.type == "custom":
        values = {"type": f"custom ({section.label})"} | {k: v for k, v in values.items() if k not in ("type", "path")}
    rest = ", ".join(f"{key} {value}" for key, value in values.items() if key != "type" and value is not None)
    return f"{values['type']} ({rest})" if rest else str(values["type"])
