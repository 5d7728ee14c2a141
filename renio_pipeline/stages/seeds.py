"""The seeds of what is sampled in a run."""

from __future__ import annotations

import hashlib


def sample_seed(seed: int, number: int) -> int:
    """A seed for each sample of a run, or each text of a request, which differs between them and between ``seed``s."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF
