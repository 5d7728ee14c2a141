"""What the top-k objective lacks of the exact forward KL, by K, at a large vocabulary: `make bench`.

Teacher and student are made up: logits of a heavy-tailed kind in which the likeliest token has about half of the mass, the
student's with noise of one nat on every logit. Real models differ; the fall with K is the point.
"""

from __future__ import annotations

import torch

from renio_pipeline.divergence import generalized_jsd, top_k_forward_kl

TOKENS, VOCABULARY = 64, 152_000


def main() -> None:
    torch.manual_seed(0)
    ranks = torch.arange(1, VOCABULARY + 1).float()
    teacher = torch.log_softmax(-1.6 * ranks.log() + 0.3 * torch.randn(TOKENS, VOCABULARY), -1)
    student = torch.log_softmax(teacher + torch.randn(TOKENS, VOCABULARY), -1)
    exact = float(generalized_jsd(student, teacher, beta=0.0).mean())
    print(
        f"exact forward KL, V {VOCABULARY}, mean of {TOKENS} tokens: {exact:.4f} nats; likeliest token "
        f"{float(teacher.exp().max(-1).values.mean()):.2f}"
    )
    print(f"{'K':>6} {'with tail':>12} {'lacks':>8} {'mass outside':>14}")
    for k in (1, 8, 32, 64, 256, 1024):
        top = teacher.topk(k)
        found = float(top_k_forward_kl(student.gather(1, top.indices), top.values, torch.ones_like(top.values).bool()).mean())
        print(f"{k:>6} {found:>12.4f} {1 - found / exact:>8.1%} {1 - float(top.values.exp().sum(-1).mean()):>14.3f}")


if __name__ == "__main__":
    main()
