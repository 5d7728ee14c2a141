"""What the keys of other frameworks are called here: TRL's trainers, verl, and what both take from transformers.

The names are those of TRL's ``GKDConfig`` and ``GRPOConfig``, transformers' ``TrainingArguments``, and verl's trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Their name: our key, or a sentence where there is none. A key of verl's is known by its last parts, whatever is before them.
TRL: dict[str, str] = {
    "model_name_or_path": "student",
    "teacher_model_name_or_path": "teacher.model",
    "dataset_name": "data.path",
    "dataset_config": "data.subset",
    "dataset_train_split": "data.split",
    "dataset_test_split": "data.held_out_split",
    "max_completion_length": "max_response_tokens",
    "max_new_tokens": "max_response_tokens",
    "max_prompt_length": "data.max_prompt_tokens",
    "num_generations": "samples_per_prompt",
    "learning_rate": "trainer.lr",
    "lr_scheduler_type": "trainer.schedule",
    "weight_decay": "trainer.weight_decay",
    "adam_beta1": "trainer.betas",
    "adam_beta2": "trainer.betas",
    "max_grad_norm": "trainer.max_grad_norm",
    "gradient_checkpointing": "trainer.gradient_checkpointing",
    "per_device_train_batch_size": "batch_size (responses a step, over all ranks) and trainer.micro_batch_tokens",
    "gradient_accumulation_steps": "batch_size (responses a step) and trainer.micro_batch_tokens; the rest follows",
    "generation_batch_size": "batch_size",
    "iw_opd_gamma": "weighting.gamma, with weighting.type=iw",
    "max_steps": "steps",
    "num_train_epochs": "steps; one pass over the data is its rows times samples_per_prompt, over batch_size",
    "bf16": "trainer.dtype",
    "fp16": "trainer.dtype, which allows float32 and bfloat16",
    "output_dir": "run_dir",
    "run_name": "name",
    "report_to": "sinks",
    "push_to_hub": "no key: `renio push RUN user/name` does it after the run",
    "hub_model_id": "no key: `renio push RUN user/name` has it",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "eval_steps": "evaluate.every",
    "use_peft": "trainer.lora",
    "lora_r": "trainer.lora.r",
    "lora_alpha": "trainer.lora.alpha",
    "lora_target_modules": "trainer.lora.targets",
    "use_vllm": "nothing to set: responses are always written by vLLM",
    "vllm_mode": "placement",
    "vllm_gpu_memory_utilization": "generator.engine.gpu_memory_utilization",
    "vllm_tensor_parallel_size": "generator.tensor_parallel",
    "lmbda": "nothing to set: every response is the student's own, which is lmbda 1",
    "seq_kd": "nothing to set: every response is the student's own",
    "resume_from_checkpoint": "renio train --resume",
    "deepspeed": "trainer.deepspeed",
    "chat_template_path": "data.chat_template",
}
VERL: dict[str, str] = {
    "model.path": "student",
    "data.train_files": "data.path",
    "data.val_files": "data.held_out_path",
    "data.train_batch_size": "batch_size",
    "data.max_prompt_length": "data.max_prompt_tokens",
    "data.max_response_length": "max_response_tokens",
    "data.prompt_key": "data.fields.problem",
    "data.seed": "seed",
    "rollout.n": "samples_per_prompt",
    "rollout.temperature": "sampling.temperature",
    "rollout.top_p": "sampling.top_p",
    "rollout.top_k": "sampling.top_k",
    "rollout.tensor_model_parallel_size": "generator.tensor_parallel",
    "rollout.gpu_memory_utilization": "generator.engine.gpu_memory_utilization",
    "rollout.engine_kwargs": "generator.engine",
    "optim.lr": "trainer.lr",
    "optim.weight_decay": "trainer.weight_decay",
    "optim.lr_warmup_steps": "trainer.warmup_steps",
    "actor.grad_clip": "trainer.max_grad_norm",
    "actor.ppo_mini_batch_size": "batch_size: each batch is one optimizer step",
    "actor.ppo_micro_batch_size_per_gpu": "trainer.micro_batch_tokens",
    "actor.ppo_max_token_len_per_gpu": "trainer.micro_batch_tokens",
    "model.lora_rank": "trainer.lora.r",
    "model.lora_alpha": "trainer.lora.alpha",
    "model.enable_gradient_checkpointing": "trainer.gradient_checkpointing",
    "trainer.total_training_steps": "steps",
    "trainer.total_epochs": "steps; one pass over the data is its rows times samples_per_prompt, over batch_size",
    "trainer.n_gpus_per_node": "pools.generator, pools.teacher and pools.trainer, each with replicas and gpus",
    "trainer.nnodes": "pools.generator, pools.teacher and pools.trainer, each with replicas and gpus",
    "trainer.project_name": "wandb.project",
    "trainer.experiment_name": "name",
    "trainer.logger": "sinks",
    "trainer.default_local_dir": "run_dir",
    "trainer.save_freq": "checkpoint.every",
    "trainer.test_freq": "evaluate.every",
    "trainer.max_actor_ckpt_to_keep": "checkpoint.keep",
    "trainer.resume_mode": "renio train --resume",
}
FRAMEWORKS = {"TRL": TRL, "verl": VERL}


def our_name(key: str, value: Any) -> str | None:
    """What an unknown key is called here: ``TRL's max_completion_length is max_response_tokens here``; None if nobody knows it.

    Args:
        key: dotted, as the user wrote it.
        value: what was given for it. Where that is a section, each of its keys is looked up.
    """
    found = [name for path in [key, *_paths(key, value)] if (name := _found(path))]
    return "; ".join(found) or None


def _found(path: str) -> str | None:
    for framework, names in FRAMEWORKS.items():
        for theirs, ours in names.items():
            if path == theirs or path.endswith(f".{theirs}"):
                return f"{framework}'s {theirs} is {ours}{'' if ' ' in ours else ' here'}"
    return None


def _paths(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield f"{key}.{name}"
            yield from _paths(f"{key}.{name}", inner)
