"""One rank of the trainer group: a Ray actor with narrow verbs. The loop owns their order."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.cluster.visible_gpus import check_visible_gpus
from actors.trainer import rank_checkpoint
from actors.trainer.deepspeed_engine import build, on_host, optimizer_step, weight_source
from actors.trainer.messages import RankReport, RankSpec, WriteState
from actors.trainer.offload import HostState, free_cached
from actors.weight_sync.client import SyncClient
from renio_pipeline.objectives import Objective
from renio_pipeline.types import NonFiniteError, TrainSample, Version

if TYPE_CHECKING:  # Imported lazily where needed: the driver imports this module and must not import torch.
    from actors.trainer.checkpoint_writer import Writer
    from actors.trainer.following_teacher import Ema, WithHead
    from actors.weight_sync.sender import Sender, SyncReceipt
    from renio_pipeline.objectives.projection import Head
    from renio_pipeline.types import Payload


class TrainerRank:
    def __init__(self, spec: RankSpec, rank: int, world_size: int) -> None:
        self._spec, self._rank, self._world_size = spec, rank, world_size
        self._sender: Sender | None = None
        self._teacher_source: WithHead | None = None
        self._teacher_heads: dict[tuple[str, Version], Head] = {}
        self._ema: Ema | None = None
        self._writer: Writer | None = None

    def address(self) -> tuple[str, int]:
        """This node's address and a free port, for the group's rendezvous."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def ping(self) -> int:
        """This process, which is alive. In the concurrency group ``CONTROL``."""
        return os.getpid()

    def sees(self, path: str) -> tuple[str, bool]:
        """This node's name, and whether a file of the driver is there."""
        return socket.gethostname(), Path(path).is_file()

    def make_universal(self) -> None:
        """Before any rank's setup: make the checkpoint that this group goes on from readable by its number of ranks."""
        assert self._spec.restore is not None
        rank_checkpoint.make_universal(self._spec.restore)

    def setup(self, address: str, port: int) -> None:
        os.environ |= {
            "RANK": str(self._rank),
            "WORLD_SIZE": str(self._world_size),
            "LOCAL_RANK": "0",
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
        }
        if self._spec.on_gpu:
            check_visible_gpus()
        self._engine = build(self._spec, self._world_size)
        if self._spec.restore is not None:
            rank_checkpoint.load(self._engine, self._spec.restore, self._rank, lora=self._spec.trainer.lora is not None)
        self._host_state = HostState(self._engine)
        device = self._engine.device
        self._teacher_heads = {(n, Version(0, 0)): _load_head(*head, device) for n, head in self._spec.heads.items()}

    def offload(self) -> None:
        """Let a generator have the GPU's memory: all that a weight sync does not need, as far as ``trainer.offload`` says."""
        if self._spec.trainer.offload == "optimizer":
            self._host_state.offload()
        free_cached()

    def onload(self) -> None:
        """Before training or a checkpoint: be as before ``offload``. Without effect on a rank that has all it needs."""
        self._host_state.onload()

    @property
    def _lm(self) -> Any:
        return self._engine.module.lm

    def connect(self, engines: list[Any], workers: list[int], dtype: str, backend: str, address: str, port: int) -> None:
        """Make the weight sender, in place of the former one. Called again whenever the generators change.

        All but ``nccl`` and ``ipc`` ask nothing of the generators. ``nccl`` needs a fresh port each time.

        Raises:
            TransferFailed: generators did not come to the rendezvous; on the first rank.
        """
        import torch

        from actors.trainer.lora import AdapterSource
        from actors.weight_sync.factory import make_sender
        from actors.weight_sync.host_sender import AdapterSender

        if self._sender is not None:
            self._sender.close()
        client, sent_as = SyncClient(engines, workers, seconds=self._spec.transfer_seconds), getattr(torch, dtype)
        if self._spec.adapter_sync:
            self._sender = AdapterSender(AdapterSource(self._lm, dtype=sent_as), client, rank=self._rank)
        else:
            source = weight_source(self._lm, self._spec.trainer.lora, None if backend == "host" else sent_as)
            self._sender = make_sender(
                backend,
                source,
                client,
                rank=self._rank,
                dtype=sent_as,
                address=address,
                port=port,
                packed_bytes=self._spec.packed_bytes,
            )
        self._sender.open()

    def connect_teacher(self, teachers: list[Any], workers: list[int]) -> None:
        """Make the sender of a teacher that follows the student. Called again whenever the teachers change."""
        from actors.trainer.following_teacher import WithHead
        from actors.weight_sync.factory import make_sender

        if self._teacher_source is None:  # once: an average must not begin anew
            self._teacher_source = WithHead(self._followed(), self._lm)
        client = SyncClient(teachers, workers, seconds=self._spec.transfer_seconds)
        self._teacher_sender = make_sender("host", self._teacher_source, client, rank=self._rank)

    def _followed(self) -> Any:
        """The source of that teacher's weights: the student's, or their average."""
        import torch

        from actors.trainer.following_teacher import Ema

        follow, dtype = self._spec.follow, getattr(torch, self._spec.teacher_dtype)
        assert follow is not None
        if follow.teacher != "ema":
            return weight_source(self._lm, self._spec.trainer.lora, dtype)
        self._ema = Ema(
            self._lm, follow.decay, rank=self._rank, world_size=self._world_size, dtype=dtype, lora=self._spec.trainer.lora
        )
        if self._spec.restore is not None:
            self._ema.load(f"{self._spec.restore.folder}/ema")
        return self._ema

    def publish_teacher(self, version: Version) -> SyncReceipt:
        """Bring every teacher to the student's weights, or to their average. Collective."""
        assert self._teacher_source is not None, "connect_teacher() comes first"
        receipt = self._teacher_sender.send(version)
        # A payload that is trained on later may be of an older version, as old as the staleness bound allows.
        heads = {**self._teacher_heads, ("", version): self._teacher_source.head}
        self._teacher_heads = {key: heads[key] for key in list(heads)[-self._spec.kept_heads :]}
        return receipt

    def publish(self, version: Version) -> SyncReceipt:
        """Bring every generator to this rank's weights. Collective: see ``Sender.send``."""
        assert self._sender is not None, "connect() comes first"
        return self._sender.send(version)

    def logprobs(self, micro_batches: list[list[TrainSample]], temperature: float, vocab_size: int) -> dict[int, np.ndarray]:
        """log p_S by the current weights: [T] float32 by sample id. Collective."""
        from renio_pipeline.models.student import sampled_logprobs

        found: dict[int, np.ndarray] = {}
        for samples in micro_batches:
            found |= sampled_logprobs(
                self._engine,
                samples,
                temperature=temperature,
                vocab_size=vocab_size,
                device=self._engine.device,
                packing=self._spec.trainer.packing,
            )
        return found

    def forward_backward(
        self,
        micro_batches: list[list[TrainSample]],
        *,
        step: int,
        objective: Objective,
        batch_size: int,
        temperature: float,
        vocab_size: int,
    ) -> RankReport:
        """Accumulate the gradient of this rank's share of the step's loss. Collective.

        Raises:
            NonFiniteError: before the samples' gradients are taken.
        """
        import torch

        from renio_pipeline.models.student import micro_batch_loss, non_finite_samples

        started = time.perf_counter()
        total = RankReport()
        for i, samples in enumerate(micro_batches):
            self._engine.set_gradient_accumulation_boundary(i == len(micro_batches) - 1)
            micro = micro_batch_loss(
                self._engine,
                samples,
                self._fetch(samples),
                objective=objective,
                batch_size=batch_size,
                temperature=temperature,
                vocab_size=vocab_size,
                device=self._engine.device,
                teacher_head=lambda *key: self._teacher_heads[key],
                packing=self._spec.trainer.packing,
            )
            bad = non_finite_samples(samples, micro.per_token)
            if bad or not torch.isfinite(micro.loss):
                ids = bad or [s.sample_id for s in samples]
                raise NonFiniteError(f"step {step}: the loss is not finite; samples {ids}")
            # DeepSpeed averages gradients over ranks; the loss has the global denominator already.
            self._engine.backward(micro.loss * self._world_size, scale_wrt_gas=False)
            if samples:
                total += _report(samples, micro)
        self._last_ids = [s.sample_id for samples in micro_batches for s in samples]
        return replace(total, busy_seconds=time.perf_counter() - started)

    def optimizer_step(self, step: int, ledger: str | None) -> dict[str, float]:
        """Clip and step; then write what was trained on to this rank's ledger. Collective."""
        started = time.perf_counter()
        lr = float(self._engine.get_lr()[0])
        try:
            norm = optimizer_step(self._engine)
        except FloatingPointError as error:
            raise NonFiniteError(f"step {step}: {error}; samples of this rank: {self._last_ids}") from None
        if self._ema is not None:
            self._ema.update()
        if ledger is not None:
            with Path(ledger, f"rank_{self._rank}.jsonl").open("a") as file:
                file.write(
                    json.dumps({"step": step, "incarnation": self._spec.incarnation, "sample_ids": self._last_ids}) + "\n"
                )
        return {"grad_norm": norm, "lr": lr, "busy_seconds": time.perf_counter() - started}

    def save(self, folder: str) -> None:
        """Copy what ``folder`` is to hold to the host's memory, and start to write it. Collective; ``written`` says when it is
        on the disk."""
        from actors.trainer.checkpoint_writer import Writer
        from actors.trainer.lora import AdapterSource, save_adapter

        self._writer = writer = self._writer or Writer()
        writer.begin()
        lora, first = self._spec.trainer.lora, self._rank == 0
        rank_checkpoint.use_writer(self._engine, writer)
        self._engine.save_checkpoint(
            f"{folder}/deepspeed", tag=rank_checkpoint.TAG, save_latest=False, exclude_frozen_parameters=lora is not None
        )
        rank_checkpoint.save_random_state(folder, self._rank, writer)
        if self._ema is not None:
            self._ema.save(f"{folder}/ema", writer)
        if lora is not None:
            factors = on_host(AdapterSource(self._lm, dtype=None), keep=first)
            if first:
                writer.add(
                    f"{folder}/adapter",
                    rank_checkpoint.size_of(factors),
                    lambda: save_adapter(factors, lora, self._spec.model, f"{folder}/adapter"),
                )
        if self._spec.merged_checkpoint:
            state = on_host(weight_source(self._lm, lora, next(self._lm.parameters()).dtype), keep=first)
            if first:
                rank_checkpoint.save_student(self._lm, state, self._spec.model, f"{folder}/hf", writer)

    def written(self) -> WriteState:
        """How far the files of the last ``save`` are. Returns at once."""
        assert self._writer is not None, "save() comes first"
        return self._writer.state()

    def state(self) -> dict[str, np.ndarray]:
        """The whole model in fp32, for tests and inspection. Collective."""
        import torch

        source = weight_source(self._lm, self._spec.trainer.lora, torch.float32)
        return {name: tensor.numpy() for name, tensor in on_host(source, keep=True).items()}

    def _fetch(self, samples: Sequence[TrainSample]) -> dict[int, Payload]:
        """The samples' payloads, read in place from the object store."""
        import ray

        refs = list(dict.fromkeys(s.payload for s in samples if s.payload is not None))
        tables: dict[int, Payload] = {}
        for table in ray.get(refs):
            tables |= table
        return tables


def _load_head(model: str, dtype: str, device: Any) -> Head:
    """A teacher's head from its safetensors, on this rank's device; outside ``zero.Init``, which would partition it."""
    import torch

    from renio_pipeline.models.heads import load_head

    return load_head(model, getattr(torch, dtype)).to(device)


def _report(samples: Sequence[TrainSample], micro: Any) -> RankReport:
    """What one micro-batch adds to the rank's report."""
    import torch

    lengths = [len(s.response_ids) for s in samples]
    means = [float(part.mean()) if len(part) else 0.0 for part in micro.per_token.split(lengths)]
    generator = torch.cat([torch.tensor(s.student_logprobs) for s in samples]).to(micro.student_logprobs.device)
    gap = (micro.student_logprobs - generator).abs()
    return RankReport(
        loss=float(micro.loss),
        divergence=sum(means),
        tokens=sum(s.tokens for s in samples),
        padded_tokens=micro.computed_tokens,
        mismatch_sum=float(gap.sum()),
        mismatch_max=float(gap.max()) if len(gap) else 0.0,
        response_tokens=sum(lengths),
    )
