"""The weights of a teacher that follows the student: the latest ones or their moving average. Runs on every trainer rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from actors.trainer.checkpoint_writer import Writer, size_of
from actors.trainer.deepspeed_engine import weight_source
from actors.trainer.lora import merged, scale_of
from actors.trainer.weight_source import ParameterMeta
from renio_pipeline.config.schema import Lora
from renio_pipeline.models.heads import logit_settings
from renio_pipeline.objectives.projection import Head


class Ema:
    """An exponential moving average of the student's fp32 master weights: ema = decay * ema + (1 - decay) * weights.

    Each of n ranks keeps every n-th parameter whole, so the average takes the memory of one shard. Updating and iterating are
    collective. As ``DeepSpeedSource``, it is a weight source.
    """

    def __init__(
        self, module: torch.nn.Module, decay: float, *, rank: int, world_size: int, dtype: torch.dtype, lora: Lora | None = None
    ) -> None:
        self._module, self._decay, self._dtype, self._lora = module, decay, dtype, lora
        self._rank, self._world_size = rank, world_size
        # Looked up for every parameter at every step, in models with thousands of them.
        self._owners = {meta.name: i % world_size for i, meta in enumerate(self.metadata())}
        self._average = {name: full.clone() for name, full in self._masters() if self._owner(name) == rank}

    def update(self) -> None:
        """Include the weights after the step that just ended. Collective."""
        for name, full in self._masters():
            if self._owner(name) == self._rank:
                self._average[name].lerp_(full, 1 - self._decay)

    def metadata(self) -> list[ParameterMeta]:
        return weight_source(self._module, self._lora, self._dtype).metadata()

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for meta in self.metadata():
            owner = self._owner(meta.name)
            device = next(self._module.parameters()).device
            whole = self._average[meta.name] if owner == self._rank else torch.empty(meta.shape, device=device)
            if self._world_size > 1:
                torch.distributed.broadcast(whole, src=owner)
            yield meta.name, whole.to(self._dtype)

    def save(self, folder: str, writer: Writer) -> None:
        """Write this rank's share as safetensors, from a copy in host memory."""
        from safetensors.torch import save_file

        path = f"{folder}/rank_{self._rank}.safetensors"
        copied = {name: t.to("cpu", copy=True).contiguous() for name, t in self._average.items()}
        writer.add(path, size_of(copied), lambda: save_file(copied, path))

    def load(self, folder: str) -> None:
        """Load this rank's share of an average that any number of ranks saved."""
        from safetensors import safe_open

        for path in sorted(Path(folder).glob("rank_*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in self._average.keys() & file.keys():
                    self._average[name].copy_(file.get_tensor(name))

    def _owner(self, name: str) -> int:
        return self._owners[name]

    def _masters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each full parameter in fp32; with LoRA, the merged model's."""
        pairs = ((name, _master(parameter)) for name, parameter in self._module.named_parameters())
        return pairs if self._lora is None else merged(pairs, scale_of(self._lora), torch.float32)


def _master(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A full parameter in fp32, from the optimizer's master copy if it has one. Collective."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    partitioned = hasattr(parameter, "ds_id")
    if partitioned and not parameter.requires_grad:  # frozen parameters are unknown to the optimizer
        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().float().clone()
    full = safe_get_full_fp32_param(parameter) if partitioned or hasattr(parameter, "_hp_mapping") else parameter.detach()
    return full.float()


def keep_head(pairs: Any, lm: Any, found: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a weight source's pairs and copy the output head's tensors, which payloads of this version need."""
    output = lm.get_output_embeddings()
    names = {id(p): name for name, p in lm.named_parameters()}
    wanted = {names.get(id(output.weight)): "weight", names.get(id(getattr(output, "bias", None))): "bias"}
    for name, tensor in pairs:
        if name in wanted:
            found[wanted[name]] = tensor.detach().clone()
        yield name, tensor


def head_from(found: dict[str, torch.Tensor], lm: Any) -> Head:
    scale, soft_cap = logit_settings(lm.config.get_text_config())
    return Head(weight=found["weight"], bias=found.get("bias"), scale=scale, soft_cap=soft_cap)


class WithHead:
    """A weight source that also keeps the output head of the weights it sent last."""

    def __init__(self, source: Any, lm: Any) -> None:
        self._source, self._lm = source, lm
        self._found: dict[str, torch.Tensor] = {}

    def metadata(self) -> list[ParameterMeta]:
        metadata: list[ParameterMeta] = self._source.metadata()
        return metadata

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        self._found = {}
        return keep_head(self._source, self._lm, self._found)

    @property
    def head(self) -> Head:
        return head_from(self._found, self._lm)
