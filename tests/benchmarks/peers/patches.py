"""What TRL needs to generate with vLLM on a CPU, and to compute no loss for padding.

TRL 1.16 asks vLLM for the checkpoint's own dtype, which vLLM takes down to bfloat16; it loads each tensor into layers whose
kernels have a packed copy of the old one; and off a GPU it projects padded positions on the vocabulary and then drops them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from actors.engines.build import CPU_CACHE_BYTES
from renio_pipeline.config import RunConfig


def apply(config: RunConfig) -> None:
    """Change TRL in this process. Before its trainer is made."""
    import vllm
    from trl.generation import vllm_generation
    from trl.trainer import distillation_trainer

    options = {"dtype": config.generator.dtype, "enforce_eager": True, "kv_cache_memory_bytes": CPU_CACHE_BYTES}
    vllm_generation.LLM = partial(vllm.LLM, **options)
    vllm_generation.VLLMGeneration.sync_weights = sync_weights
    distillation_trainer._use_triton = lambda device: True  # asked there only whether padding is to be left out


def sync_weights(self: Any) -> None:
    """In the place of ``VLLMGeneration.sync_weights``: vLLM's own reload, which packs what it is given."""
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    from actors.engines.layerwise_reload import repack

    model = model_of(self.llm)
    initialize_layerwise_reload(model)
    model.load_weights(self._iter_named_params())
    finalize_layerwise_reload(model, self.llm.llm_engine.model_config)
    repack(model)
    self.llm.reset_prefix_cache()


def model_of(llm: Any) -> Any:
    return llm.llm_engine.model_executor.driver_worker.model_runner.model


def largest_gap(trainer: Any) -> float:
    """The largest difference of vLLM's log-probabilities to the student's own, after a sync, over one response.

    It says whether the weights arrived.
    """
    import torch
    from vllm import SamplingParams

    generation = trainer.vllm_generation
    generation.sync_weights()
    prompt = trainer.processing_class(trainer.train_dataset[0]["prompt"])["input_ids"]
    params = SamplingParams(temperature=1.0, max_tokens=16, logprobs=0, ignore_eos=True, seed=0)
    written = generation.llm.generate([{"prompt_token_ids": prompt}], sampling_params=params, use_tqdm=False)[0].outputs[0]
    found = torch.tensor([step[token].logprob for token, step in zip(written.token_ids, written.logprobs, strict=True)])
    tokens = torch.tensor([[*prompt, *written.token_ids]])
    with torch.no_grad():
        logits = trainer.model.eval()(tokens).logits[0, len(prompt) - 1 : -1].float()
    own = torch.log_softmax(logits, dim=-1).gather(1, tokens[0, len(prompt) :, None])[:, 0]
    return float((own - found).abs().max())
