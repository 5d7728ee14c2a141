"""Hidden states as NumPy arrays, in which they travel from teachers to trainer ranks. NumPy has no bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_numpy(states: Tensor) -> np.ndarray[Any, Any]:
    """States of any shape, on any device: bfloat16 as its bits in uint16, any other type as float32."""
    states = states.cpu()
    return states.view(torch.uint16).numpy() if states.dtype == torch.bfloat16 else states.float().numpy()


def from_numpy(values: np.ndarray[Any, Any]) -> Tensor:
    """The inverse of ``to_numpy``, on the CPU: uint16 becomes bfloat16, of the same shape."""
    tensor = torch.tensor(values)
    return tensor.view(torch.bfloat16) if values.dtype == np.uint16 else tensor
