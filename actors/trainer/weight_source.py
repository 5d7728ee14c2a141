"""The trainer's weights as a stream of (name, tensor), whatever the ZeRO stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ParameterMeta:
    name: str
    dtype: torch.dtype  # as sent
    shape: tuple[int, ...]  # the full shape, even if this rank holds a shard


class DeepSpeedSource:
    """A ``WeightSource`` (structurally vLLM's) over a DeepSpeed engine's module.

    Under ZeRO 3 all ranks gather the parameters of one layer at a time, in the same order, and free them before the next: the
    extra memory is the size of the largest layer. Shapes come from ``ds_shape``, because a partitioned parameter's own shape
    is [0]. Tied parameters appear once, as in a checkpoint.

    Args:
        module: the model, with Hugging Face parameter names.
        dtype: the dtype that tensors are cast to before they are sent. None: no cast.
        only: selects parameters by name. None: all.
    """

    def __init__(
        self, module: torch.nn.Module, *, dtype: torch.dtype | None, only: Callable[[str], bool] | None = None
    ) -> None:
        self._module, self._dtype, self._only = module, dtype, only

    def metadata(self) -> list[ParameterMeta]:
        """Name, dtype and shape of what iteration yields, in its order, without gathering."""
        return [
            ParameterMeta(name, self._dtype or parameter.dtype, tuple(getattr(parameter, "ds_shape", parameter.shape)))
            for name, parameter in self._parameters()
        ]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for group in self._groups():
            parameters = [parameter for _, parameter in group]
            if any(hasattr(parameter, "ds_id") for parameter in parameters):
                import deepspeed

                with deepspeed.zero.GatheredParameters(parameters):
                    gathered = [(name, p.detach().to(self._dtype or p.dtype, copy=True)) for name, p in group]
            else:
                gathered = [(name, parameter.detach().to(self._dtype or parameter.dtype)) for name, parameter in group]
            yield from gathered

    def _parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self._module.named_parameters() if self._only is None or self._only(name)]

    def _groups(self) -> list[list[tuple[str, torch.nn.Parameter]]]:
        """Parameters by layer: those whose names agree up to the first number."""
        groups: dict[str, list[tuple[str, torch.nn.Parameter]]] = {}
        for name, parameter in self._parameters():
            groups.setdefault(layer_of(name), []).append((name, parameter))
        return list(groups.values())


def layer_of(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` -> ``model.layers.3``; a name without a number is a layer of its own.

    >>> layer_of("model.embed_tokens.weight")
    'model.embed_tokens.weight'
    """
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: i + 1])
    return name
