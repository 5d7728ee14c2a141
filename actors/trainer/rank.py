"""One rank of the trainer group: a Ray actor with small methods. The step loop decides their order."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.cluster.visible_gpus import check_visible_gpus
from actors.trainer import rank_checkpoint
from actors.trainer.deepspeed_engine import build, on_host, optimizer_step, weight_source
from actors.trainer.messages import RankReport, RankSpec, WriteState
from actors.trainer.micro_batches import fetch_payloads, report_of
from actors.trainer.offload import HostState, free_cached
from actors.trainer.sources import load_teacher_head, make_followed_source, make_generator_sender
from actors.weight_sync.client import SyncClient
from renio_pipeline.config.schema import Diagnostics
from renio_pipeline.objectives import Objective
from renio_pipeline.run_dir.ledger_files import record_trained
from renio_pipeline.types import NonFiniteError, TrainSample, Version

if TYPE_CHECKING:  # Imported lazily where needed: the driver imports this module and must not import torch.
    from actors.trainer.checkpoint_writer import Writer
    from actors.trainer.following_teacher import Ema, WithHead
    from actors.weight_sync.sender import Sender, SyncReceipt
    from renio_pipeline.objectives.projection import Head


class TrainerRank:
    """A DeepSpeed engine and what it sends. All ranks must call the methods marked "Collective" together, in the same order."""

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
        """This process's id. Called in the concurrency group ``CONTROL``, so it answers while a collective runs."""
        return os.getpid()

    def sees(self, path: str) -> tuple[str, bool]:
        """This node's name, and whether the driver's file ``path`` is visible here."""
        return socket.gethostname(), Path(path).is_file()

    def make_universal(self) -> None:
        """Convert the checkpoint to resume from, so that another number of ranks can load it. Called before ``setup``."""
        assert self._spec.restore is not None
        rank_checkpoint.make_universal(self._spec.restore)

    def setup(self, address: str, port: int) -> None:
        """Join the process group at ``address:port``, then load the model or the checkpoint to resume from. Collective."""
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
        self._teacher_heads = {
            (n, Version(0, 0)): load_teacher_head(*head, device, self._spec.end_tokens.get(n, ()))
            for n, head in self._spec.heads.items()
        }

    def offload(self) -> None:
        """Free GPU memory for a colocated generator: torch's cache, and the optimizer if ``trainer.offload`` says so."""
        if self._spec.trainer.offload == "optimizer":
            self._host_state.offload()
        free_cached()

    def onload(self) -> None:
        """Undo ``offload`` before training or a checkpoint. No effect if nothing is offloaded."""
        self._host_state.onload()

    @property
    def _lm(self) -> Any:
        return self._engine.module.lm

    def connect(self, engines: list[Any], workers: list[int], dtype: str, backend: str, address: str, port: int) -> None:
        """Create the weight sender, in place of the previous one. Called again whenever the generators change.

        Only ``nccl`` and ``ipc`` contact the generators here. ``nccl`` needs a fresh port each time.

        Args:
            engines: the generators' actors, as many as ``workers``.
            workers: the number of engine workers of each.
            dtype: the generators' dtype, such as "bfloat16".
            backend: "host", "nccl" or "ipc".
            address, port: the first rank's, for ``nccl``'s rendezvous.

        Raises:
            TransferFailed: generators did not join the rendezvous. Raised on the first rank.
        """
        if self._sender is not None:
            self._sender.close()
        client = SyncClient(engines, workers, seconds=self._spec.transfer_seconds)
        self._sender = make_generator_sender(
            self._spec, self._lm, client, rank=self._rank, dtype=dtype, backend=backend, address=address, port=port
        )
        self._sender.open()

    def connect_teacher(self, teachers: list[Any], workers: list[int]) -> None:
        """Create the sender of a teacher that follows the student. Called again whenever the teachers change."""
        from actors.trainer.following_teacher import WithHead
        from actors.weight_sync.factory import make_sender

        if self._teacher_source is None:  # only once: a moving average must not start over
            source, self._ema = make_followed_source(self._spec, self._lm, rank=self._rank, world_size=self._world_size)
            self._teacher_source = WithHead(source, self._lm)
        client = SyncClient(teachers, workers, seconds=self._spec.transfer_seconds)
        self._teacher_sender = make_sender("host", self._teacher_source, client, rank=self._rank)

    def publish_teacher(self, version: Version) -> SyncReceipt:
        """Send the student's weights, or their moving average, to the teachers that follow. Collective."""
        assert self._teacher_source is not None, "connect_teacher() comes first"
        receipt = self._teacher_sender.send(version)
        # A payload may be trained on later, when the teacher is newer by as many versions as the staleness bound allows.
        heads = {**self._teacher_heads, ("", version): self._teacher_source.head}
        self._teacher_heads = {key: heads[key] for key in list(heads)[-self._spec.kept_heads :]}
        return receipt

    def publish(self, version: Version) -> SyncReceipt:
        """Send the current weights to every generator. Collective: see ``Sender.send``."""
        assert self._sender is not None, "connect() comes first"
        return self._sender.send(version)

    def logprobs(self, micro_batches: list[list[TrainSample]], temperature: float, vocab_size: int) -> dict[int, np.ndarray]:
        """log p_S of the response tokens under the current weights, in nats: [T] float32 by sample id. Collective."""
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
        batch_tokens: int,
        temperature: float,
        vocab_size: int,
        diagnostics: Diagnostics | None = None,
    ) -> RankReport:
        """Accumulate the gradient of this rank's share of the step's loss. Collective.

        Raises:
            NonFiniteError: a sample's loss is not finite. Raised before its gradient is computed.
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
                fetch_payloads(samples),
                objective=objective,
                batch_size=batch_size,
                batch_tokens=batch_tokens,
                temperature=temperature,
                vocab_size=vocab_size,
                device=self._engine.device,
                teacher_head=lambda *key: self._teacher_heads[key],
                shared_tokens=self._spec.shared_tokens,
                packing=self._spec.trainer.packing,
                diagnostics=diagnostics,
            )
            bad = non_finite_samples(samples, micro.per_token)
            if bad or not torch.isfinite(micro.loss):
                ids = bad or [s.sample_id for s in samples]
                raise NonFiniteError(f"step {step}: the loss is not finite; samples {ids}")
            # DeepSpeed averages gradients over ranks, but the loss already has the global denominator.
            self._engine.backward(micro.loss * self._world_size, scale_wrt_gas=False)
            if samples:
                total += report_of(samples, micro, objective)
        trained = [s for samples in micro_batches for s in samples]
        self._last_ids = [s.sample_id for s in trained]
        self._last_off_policy = [s.sample_id for s in trained if s.off_policy]
        return replace(total, busy_seconds=time.perf_counter() - started)

    def optimizer_step(self, step: int, ledger: str | None) -> dict[str, float]:
        """Clip the gradient, update the weights, and write the sample ids of the step to this rank's ledger. Collective.

        Args:
            ledger: the folder of the ledger files. None: write none.

        Returns:
            ``grad_norm`` before clipping, ``lr`` of this step, and ``busy_seconds``.

        Raises:
            NonFiniteError: the gradient's norm is not finite.
            LeaseLostError: another driver writes the run's directory now.
        """
        started = time.perf_counter()
        lr = float(self._engine.get_lr()[0])
        try:
            norm = optimizer_step(self._engine)
        except FloatingPointError as error:
            raise NonFiniteError(f"step {step}: {error}; samples of this rank: {self._last_ids}") from None
        if self._ema is not None:
            self._ema.update()
        if ledger is not None:
            record_trained(
                Path(ledger),
                self._rank,
                step=step,
                incarnation=self._spec.incarnation,
                sample_ids=self._last_ids,
                off_policy=self._last_off_policy,
                fence=self._spec.fence,
            )
        return {"grad_norm": norm, "lr": lr, "busy_seconds": time.perf_counter() - started}

    def save(self, folder: str) -> None:
        """Copy this rank's part of checkpoint ``folder`` to host memory and start writing it. Collective.

        ``written`` says when the files are on disk.
        """
        from actors.trainer.checkpoint_writer import Writer

        self._writer = self._writer or Writer(self._spec.fence)
        self._writer.begin()
        rank_checkpoint.save(self._engine, self._spec, folder, self._rank, self._ema, self._writer)

    def written(self) -> WriteState:
        """The progress of the last ``save``'s files. Returns at once."""
        assert self._writer is not None, "save() comes first"
        return self._writer.state()

    def state(self) -> dict[str, np.ndarray]:
        """The whole model in float32 by parameter name, for tests and inspection. Collective."""
        import torch

        source = weight_source(self._lm, self._spec.trainer.lora, torch.float32)
        return {name: tensor.numpy() for name, tensor in on_host(source, keep=True).items()}
