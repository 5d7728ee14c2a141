"""The weights that a rank sends to generators and to a following teacher, and the teachers' heads that it loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.trainer.deepspeed_engine import weight_source
from actors.trainer.messages import RankSpec
from actors.weight_sync.client import SyncClient
from renio_pipeline.types import EndTokens

if TYPE_CHECKING:  # Imported lazily: the driver imports this module and must not import torch.
    from actors.trainer.following_teacher import Ema
    from actors.weight_sync.sender import Sender
    from renio_pipeline.objectives.projection import Head


def make_generator_sender(
    spec: RankSpec, lm: Any, client: SyncClient, *, rank: int, dtype: str, backend: str, address: str, port: int
) -> Sender:
    """The sender of the student's weights, or of its LoRA factors alone where ``sync.lora`` is "adapter".

    Args:
        lm: the rank's Hugging Face model.
        dtype: the generators' dtype. The others see ``actors.weight_sync.factory.make_sender``.
    """
    import torch

    from actors.trainer.lora import AdapterSource
    from actors.weight_sync.factory import make_sender
    from actors.weight_sync.host_sender import AdapterSender

    sent_as = getattr(torch, dtype)
    if spec.adapter_sync:
        return AdapterSender(AdapterSource(lm, dtype=sent_as), client, rank=rank)
    source = weight_source(lm, spec.trainer.lora, None if backend == "host" else sent_as)
    return make_sender(
        backend, source, client, rank=rank, dtype=sent_as, address=address, port=port, packed_bytes=spec.packed_bytes
    )


def make_followed_source(spec: RankSpec, lm: Any, *, rank: int, world_size: int) -> tuple[Any, Ema | None]:
    """The source of a following teacher's weights: the student itself, or its moving average, which is then also returned.

    The average resumes from the checkpoint in ``spec.restore``. Collective.
    """
    import torch

    from actors.trainer.following_teacher import Ema

    follow, dtype = spec.follow, getattr(torch, spec.teacher_dtype)
    assert follow is not None
    if follow.teacher != "ema":
        return weight_source(lm, spec.trainer.lora, dtype), None
    ema = Ema(lm, follow.decay, rank=rank, world_size=world_size, dtype=dtype, lora=spec.trainer.lora)
    if spec.restore is not None:
        ema.load(f"{spec.restore.folder}/ema")
    return ema, ema


def load_teacher_head(model: str, dtype: str, device: Any, end_tokens: EndTokens = ()) -> Head:
    """Read a teacher's output head from its safetensors, its ``end_tokens`` in each other's places.

    Must run outside ``zero.Init``, which would partition it.
    """
    import torch

    from renio_pipeline.models.heads import load_head

    return load_head(model, getattr(torch, dtype)).exchanged(end_tokens).to(device)
