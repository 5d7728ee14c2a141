"""How many logits a loss makes at a time: elements of [C, V], C tokens of a chunk, V vocabulary entries.

Apart from the losses because ``renio plan`` counts on them too, and must not import torch.
"""

from __future__ import annotations

# With fewer, reading the head anew costs more than it saves.
FULL_VOCABULARY = {"cpu": 2**25, "cuda": 2**26, "kernel": 40_000_000}
# A GPU has as much again for the log-probabilities, and half of it for each chunk's gradients.
TOKEN_LOSS = {"cpu": 2**26, "cuda": 40_000_000}
