"""The device and the shapes of every check, in one place: those of Qwen3, or small ones that a CPU computes in seconds."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a Qwen3 model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool


@dataclass(frozen=True, kw_only=True)
class Settings:
    device: str  # "cuda" or "cpu"
    main: Sizes  # of most checks
    large: Sizes
    rows: int  # of the output head, padding included
    vocabulary: int  # entries that count: the head is trimmed to them
    dtype: str  # of engines and trainer
    gap: float  # largest mean difference of an engine's log-probabilities and torch's, nats
    state_gap: float  # largest relative difference of an engine's hidden states and torch's
    lengths: tuple[int, ...]  # of packed sequences, tokens
    samples: int
    prompt_tokens: int
    response_tokens: int
    scored_tokens: int  # of a sequence to score
    loss_tokens: int
    micro_batch_tokens: int
    lr: float  # so large that one step shows
    lora_lr: float
    buffer_bytes: int  # of packed weights, where the pipeline does not say
    rounds: int  # of the packed transfer
    temperature: float = 1.1  # τ
    top_p: float = 0.95
    top_k: int = 20
    gpu_memory_utilization: float = 0.35  # of an engine next to a trainer

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def context(self) -> int:
        return max(self.scored_tokens, self.prompt_tokens + self.response_tokens) + 1

    @property
    def engine_options(self) -> dict[str, object]:
        return {"gpu_memory_utilization": self.gpu_memory_utilization} if self.on_gpu else {}


QWEN3_1_7B = Sizes(layers=28, hidden=2048, intermediate=6144, heads=16, kv_heads=8, head_dim=128, tied=True)
QWEN3_8B = Sizes(layers=36, hidden=4096, intermediate=12288, heads=32, kv_heads=8, head_dim=128, tied=False)


def make(*, device: str, small: bool) -> Settings:
    # Two correct kernels in bfloat16 differ by about 0.02 of the logits' size at these depths; float32 ones by rounding alone.
    half = device == "cuda"
    common: dict[str, object] = {
        "device": device,
        "dtype": "bfloat16" if half else "float32",
        "gap": 0.1 if half else 1e-3,
        "state_gap": 0.05 if half else 1e-3,
    }
    if small:
        return Settings(
            main=Sizes(layers=4, hidden=64, intermediate=128, heads=4, kv_heads=2, head_dim=32, tied=True),
            large=Sizes(layers=6, hidden=96, intermediate=160, heads=6, kv_heads=2, head_dim=32, tied=False),
            rows=640,
            vocabulary=600,
            lengths=(50, 1, 30, 23),
            samples=8,
            prompt_tokens=12,
            response_tokens=20,
            scored_tokens=90,
            loss_tokens=96,
            micro_batch_tokens=512,
            lr=1e-2,
            lora_lr=3e-2,
            buffer_bytes=30_000,
            rounds=20,
            **common,  # type: ignore[arg-type]
        )
    return Settings(
        main=QWEN3_1_7B,
        large=QWEN3_8B,
        rows=151936,
        vocabulary=151669,
        lengths=(500, 1, 300, 223),
        samples=16,
        prompt_tokens=128,
        response_tokens=256,
        scored_tokens=2500,
        loss_tokens=4096,
        micro_batch_tokens=16384,
        lr=3e-4,
        lora_lr=3e-3,
        buffer_bytes=256 * 2**20,
        rounds=200,
        **common,  # type: ignore[arg-type]
    )
