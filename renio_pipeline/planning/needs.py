"""The memory of a run's actors, and what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import DTYPE_BYTES
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.data.other_tokenizers import ROOM
from renio_pipeline.planning.devices import GIB
from renio_pipeline.planning.known import Known
from renio_pipeline.planning.limits import context
from renio_pipeline.planning.memory import Engine, Use, engine, torch_teacher, transfer
from renio_pipeline.planning.rank_memory import average, model_states, trainer_rank
from renio_pipeline.preflight.payload import payload_token_bytes
from renio_pipeline.stages.engine_limits import batch_tokens


@dataclass(frozen=True)
class Needs:
    """The memory needs of a configuration's actors; for trainer ranks, by their number."""

    config: RunConfig
    known: Known

    @cached_property
    def generator(self) -> Engine:
        sizes, config = self.known.sizes, self.config
        ranks = config.pools.trainer.replicas
        rank = sum((model_states(config.trainer, sizes.student, ranks) | average(config.follow, sizes.student, ranks)).values())
        if config.trainer.offload == "optimizer":
            rank -= model_states(config.trainer, sizes.student, ranks)["optimizer"]
        return engine(
            config.generator,
            sizes.student,
            self.known.device,
            prompt=sizes.prompt,
            lengths=self.known.lengths,
            context=context(config.max_response_tokens, self.known.longest_prompt),
            limits=self.known.limits["generator"],
            model_share=rank if config.placement == "colocated" else 0.0,
            transfer=transfer(config, sizes.student),
        )

    @cached_property
    def teachers(self) -> dict[str, Use]:
        """The use of each teacher's replicas, by pool."""
        config, known, found = self.config, self.known, dict[str, Use]()
        for (name, section), model in zip(config.all_teachers.items(), known.sizes.teachers, strict=True):
            pool = config.teacher_pools[name]
            room = ROOM if name in config.own_tokenizers else 1
            longest = context(room * config.max_response_tokens, known.longest_teacher_prompt)
            if section.type == "http":
                continue  # its servers have the model
            if section.type == "torch":
                sent = config.objective.payload == HIDDEN
                hidden = batch_tokens(section, None) * model.hidden * DTYPE_BYTES[section.dtype] if sent else 0
                found[pool] = torch_teacher(section, model, known.device, longest, hidden)
            else:
                found[pool] = engine(
                    section,
                    model,
                    known.device,
                    limits=known.limits[pool],
                    prompt=longest,
                    lengths=None,
                    context=longest,
                    prompt_logits=config.objective.payload != HIDDEN,
                ).use
        return found

    def rank(self, ranks: int) -> Use:
        known = self.known
        longest = known.longest_prompt + self.config.max_response_tokens
        answered = known.sizes.response / known.sizes.sequence
        teachers = list(known.sizes.teachers)
        return trainer_rank(self.config, known.sizes.student, teachers, known.device, ranks, longest, answered)

    @cached_property
    def payload(self) -> int:
        """The bytes that a teacher sends per token."""
        models = zip(self.config.all_teachers, self.known.sizes.teachers, strict=True)
        largest = max((payload_token_bytes(self.config, name, model.hidden) for name, model in models), default=0)
        return largest * self.config.teachers_of_a_sample

    @cached_property
    def host(self) -> dict[str, float]:
        """Host memory in bytes, by use."""
        config, known, student = self.config, self.known, self.known.sizes.student
        step = config.batch_size * self.payload * known.sizes.response
        lora = config.trainer.lora
        sent = student.factors(lora.targets, lora.r) if lora and config.sync.lora == "adapter" else student.parameters
        copied = config.generates and config.sync.backend == "host"
        copy = sent * DTYPE_BYTES[config.generator.dtype] if copied else 0.0
        states = model_states(config.trainer, student, 1)
        return {
            "object store: payload": min(step * (1 + config.max_staleness), config.payload.max_bytes),
            "object store: weights, on every node with generators": copy,
            "checkpoint, over all ranks' nodes": states["weights"] + states["optimizer"],
        }

    def obstacles(self, ranks: int) -> list[str]:
        """Why no split with this number of trainer ranks can run."""
        found = []
        if self.config.generates and not self.generator.fits:
            found.append(_too_large("a generator", self.generator.use, "raise generator.tensor_parallel (and its pool's gpus)"))
        for pool, use in self.teachers.items():
            if not use.fits:
                found.append(_too_large(f"pool {pool}: a replica", use, "use teacher.type=vllm with a tensor_parallel above 1"))
        if not self.rank(ranks).fits:
            help = "raise trainer.zero_stage, lower trainer.micro_batch_tokens, or set trainer.gradient_checkpointing=true"
            found.append(_too_large(f"one of {ranks} trainer ranks", self.rank(ranks), help))
        config = self.config
        worst = config.batch_size * config.max_response_tokens * self.payload
        if worst > config.payload.max_bytes:
            found.append(
                f"a step's payload may take {worst} bytes, and payload.max_bytes is {config.payload.max_bytes}; raise it, or "
                "lower batch_size"
            )
        return found


def _too_large(what: str, use: Use, help: str) -> str:
    parts = ", ".join(
        f"{name} {part / GIB:.1f}" for name, part in sorted(use.parts.items(), key=lambda p: -p[1]) if part > GIB / 20
    )
    return f"{what} needs {use.total / GIB:.1f} GiB of a GPU ({parts}), but may use {use.limit / GIB:.1f}; {help}"
