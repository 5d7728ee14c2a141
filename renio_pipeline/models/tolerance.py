"""How far two computations of one tensor may differ.

Two correct kernels never agree entry by entry: in half precision the largest of a few hundred thousand logits is off by as
much as a small logit is large, and the gap grows with the depth of the model. So tensors are compared by norms, with a bound
that depth does not reach: sdpa against eager attention, bfloat16, gives 0.015 at 16 layers and 0.018 at 36, while
architectures that mix sequences give 0.1 and more.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
SAME_KERNELS = {True: 1e-2, False: 1e-3}  # bounds, by whether the model is in half precision: one computation, done twice
OTHER_KERNELS = {True: 5e-2, False: 1e-2}  # the same mathematics in another order


def relative_error(found: Tensor, expected: Tensor) -> float:
    """``‖found - expected‖ / ‖expected‖`` over all entries, in float32; NaN where either has one.

    Args:
        found, expected: of one shape, any dtype.
    """
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm().clamp_min(torch.finfo(torch.float32).tiny))
