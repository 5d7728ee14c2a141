"""What is needed to ask one model all problems: its tokenizer, the encoded prompts, and the sizes of its engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Audience, Sync, TemplateOptions
from renio_pipeline.data.chat_templates import check_variables, choose_template, end_warning
from renio_pipeline.data.problems import SHOWN, left_out
from renio_pipeline.data.prompt_lengths import Bounds, check_length, check_not_empty
from renio_pipeline.data.prompts import Encoder
from renio_pipeline.data.template_clock import TemplateClock
from renio_pipeline.evaluation.models import Located
from renio_pipeline.evaluation.sets import DataSet
from renio_pipeline.models.adapters import Adapter, read_adapter
from renio_pipeline.models.files import end_ids
from renio_pipeline.models.info import ModelInfo, read_tokenizer, resolve
from renio_pipeline.models.info import inspect as inspect_model
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Prompt

Inspect = Callable[[str, str], ModelInfo]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A checked model. Its generators are built with ``vocab_size`` and ``context``."""

    name: str
    model: str
    adapter: Adapter | None  # which its generators add to the model
    config: RunConfig  # the configuration of its generators
    tokenizer: Any
    sets: tuple[DataSet, ...]  # without the problems whose prompts are longer than data.max_prompt_tokens
    prompts: tuple[tuple[Prompt, ...], ...]  # by data set: the n samples of each problem, one after the other
    vocab_size: int
    context: int  # tokens of the longest prompt, a whole response, and one more
    notes: tuple[str, ...] = ()  # what is left out for this model, and why


def alone(config: RunConfig) -> RunConfig:
    """The configuration of generators without a trainer: no weight sync, no LoRA factors from one, and no shared GPUs.

    The keys of ``evaluate`` replace the sampling settings, where they are set.
    """
    own, sampling = config.evaluate, config.sampling
    return config.model_copy(
        update={
            "sync": Sync(),
            "seed": config.seed if own.seed is None else own.seed,
            "placement": "separate",
            "max_response_tokens": own.max_response_tokens or config.max_response_tokens,
            "sampling": sampling.model_copy(
                update={
                    "top_p": sampling.top_p if own.top_p is None else own.top_p,
                    "top_k": sampling.top_k if own.top_k is None else own.top_k,
                }
            ),
        }
    )


def ask(
    config: RunConfig,
    name: str,
    located: Located,
    sets: Sequence[DataSet],
    inspect: Inspect = inspect_model,
    key: str = "--model",
    clock: TemplateClock | None = None,
) -> Asked:
    """Check a model against the data sets. A sample of a problem has the same id, hence the same seed, for every model.

    Args:
        config: the result of ``alone``.
        inspect: reads a model by (name, key); for hub names the caller may run it on another node.
        key: the option by which the user gave the model, for error messages.
        clock: of the chat template; None: the time now.

    Raises:
        ConfigError: the model does not exist or has no chat template, a prompt exceeds its context, or
            ``data.max_prompt_tokens`` leaves no problem of a data set.
    """
    model = located.model
    info = inspect(model, key)
    tokenizer = read_tokenizer(model, key)
    choose_template(tokenizer, config.data.chat_template, model, key)
    bounds = Bounds(
        context=info.context,
        model=model,
        max_response_tokens=config.max_response_tokens,
        vocab_size=info.vocab_rows,
        max_prompt_tokens=config.data.max_prompt_tokens,
    )
    check_variables(tokenizer, TemplateOptions(evaluation=config.template.evaluation))
    longest, sample_id = 0, 0
    prompts: list[tuple[Prompt, ...]] = []
    fitting: list[DataSet] = []
    warning = end_warning(tokenizer, end_ids(resolve(model), tokenizer), model)
    clock = clock or TemplateClock()
    notes = [note for note in (warning, clock.note(tokenizer.chat_template, model)) if note]
    for data in sets:
        phrasing = Phrasing(data.task, data.prompts or config.prompts, config.template)
        plain: list[Audience] = ["evaluation"] if config.evaluate.prompt == "plain" else []
        template = f"{key}: the chat template of {model!r}"
        encoder = Encoder(tokenizer, phrasing, plain=plain, template=template, clock=clock)
        asked: list[Prompt] = []
        encoded = encoder.encode(data.rows, "evaluation")
        long, said = _too_long(data, encoded, bounds, name)
        notes += said
        for row, ids in zip(data.rows, encoded, strict=True):
            check_not_empty(ids, f"row {row.id!r} of {data.name}")
            if row.id in long:
                sample_id -= data.samples  # the other samples keep the ids, hence the seeds, that they have for every model
                continue
            if len(ids) and (largest := int(ids.max())) >= info.vocab_rows:
                raise ConfigError(
                    f"{key}: the prompt of row {row.id!r} has token id {largest}, but {model!r} has only {info.vocab_rows}"
                )
            longest = max(longest, check_length(len(ids), row, bounds))
            for _ in range(data.samples):
                sample_id -= 1  # negative, as in every evaluation: never the id of a training sample
                asked.append(Prompt(sample_id=sample_id, row=row, student_ids=ids, teacher_ids=ids))
        prompts.append(tuple(asked))
        fitting.append(replace(data, rows=[row for row in data.rows if row.id not in long], notes=(*data.notes, *said)))
    return Asked(
        name=name,
        model=model,
        adapter=read_adapter(located.adapter, key) if located.adapter else None,
        config=config.model_copy(update={"student": model}),
        tokenizer=tokenizer,
        sets=tuple(fitting),
        prompts=tuple(prompts),
        notes=tuple(notes),
        vocab_size=info.vocab_rows,
        context=longest + config.max_response_tokens + 1,
    )


def _too_long(data: DataSet, encoded: Sequence[np.ndarray], bounds: Bounds, name: str) -> tuple[set[str], list[str]]:
    """The ids of the rows whose prompts are longer than ``data.max_prompt_tokens``, and notes about them.

    Raises:
        ConfigError: every prompt is too long.
    """
    limit = bounds.max_prompt_tokens
    long = [(row, len(ids)) for row, ids in zip(data.rows, encoded, strict=True) if limit is not None and len(ids) > limit]
    if not long:
        return set(), []
    examples = [f"row {row.id!r}: {tokens} tokens" for row, tokens in long[:SHOWN]]
    if len(long) == len(data.rows):
        raise ConfigError(
            f"data.max_prompt_tokens: every prompt of {data.name} is longer than {limit} tokens for {bounds.model}; first: "
            f"{'; '.join(examples)}"
        )
    why = f"their prompts are longer than data.max_prompt_tokens ({limit})"
    return {row.id for row, _ in long}, [f"{name}, {data.name}: {left_out(len(long), len(data.rows), why, examples)}"]
