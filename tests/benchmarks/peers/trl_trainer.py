"""TRL's DistillationTrainer for a run of this project: its models, prompts, lengths, loss, optimizer and dtype.

This module and those that import it run in the environment that ``make peers`` makes. TRL is imported late, because no other
environment has it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from renio_pipeline.config import RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.models.info import resolve
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.preflight import Prepared, prepare

Variant = Literal["shipped", "patched"]
MICRO_BATCH: dict[Variant, int] = {"shipped": 4, "patched": 8}  # sequences


def make(config: RunConfig, out: Path, variant: Variant) -> Any:
    """A trainer that is about to take ``config.steps`` steps.

    Gradient checkpointing, which TRL turns on, is off: these models need no memory saved, and this project saves none either.

    Args:
        out: a folder for what TRL writes.

    Raises:
        ValueError: the run's loss is none that TRL has.
    """
    objective, t = config.objective, config.trainer
    if not isinstance(objective, Jsd) or objective.normalization != "token" or objective.entry_clip or objective.token_clip:
        raise ValueError("objective: TRL has the exact divergence's mean over tokens alone (type: jsd, normalization: token)")
    from transformers import AutoModelForCausalLM
    from trl import DistillationConfig

    from tests.benchmarks.peers import patches

    if variant == "patched":
        patches.apply(config)
    prepared = prepare(config)
    dtype = {"dtype": t.dtype}
    settings = DistillationConfig(
        output_dir=str(out),
        max_steps=config.steps,
        per_device_train_batch_size=MICRO_BATCH[variant],
        gradient_accumulation_steps=config.batch_size // MICRO_BATCH[variant],
        max_completion_length=config.max_response_tokens,
        shuffle_dataset=False,
        temperature=config.temperature,
        beta=objective.beta,
        learning_rate=t.lr,
        lr_scheduler_type=t.schedule,
        warmup_steps=t.warmup_steps,
        weight_decay=t.weight_decay,
        adam_beta1=t.betas[0],
        adam_beta2=t.betas[1],
        max_grad_norm=t.max_grad_norm,
        seed=config.seed,
        bf16=t.dtype == "bfloat16",
        use_cpu=True,
        gradient_checkpointing=False,
        use_vllm=variant == "patched",
        vllm_max_model_length=prepared.context,
        model_init_kwargs=dtype,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    return _counting()(
        model=resolve(config.student),
        teacher_model=AutoModelForCausalLM.from_pretrained(resolve(config.teacher_model()), **dtype),
        args=settings,
        train_dataset=_prompts(config, prepared),
        processing_class=prepared.tokenizer,
    )


def _counting() -> type[Any]:
    from trl import DistillationTrainer

    class Counting(DistillationTrainer):
        """Says of the latest step how many tokens were generated, and in what time."""

        generated_tokens, generate_seconds = 0, 0.0

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            started = time.perf_counter()
            found = super()._generate_and_score_completions(inputs)  # it scores nothing: the loss does
            self.generated_tokens = int(found["completion_mask"].sum())
            self.generate_seconds = time.perf_counter() - started
            return found

    return Counting


def _prompts(config: RunConfig, prepared: Prepared) -> Any:
    """The texts of all the run's prompts, in the order in which it draws them."""
    from datasets import Dataset

    cursor, tokenizer = Cursor(prepared.prompt_ids, prepared.rows, config), prepared.tokenizer
    drawn = [p.student_ids.tolist() for p in cursor.take(config.steps * config.batch_size)]
    texts = [tokenizer.decode(ids) for ids in drawn]
    if tokenizer(texts)["input_ids"] != drawn:
        raise ValueError("a prompt's text does not have the prompt's tokens, so TRL would be given another prompt")
    return Dataset.from_list([{"prompt": text} for text in texts])
