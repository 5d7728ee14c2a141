"""Objectives of methods that have no teacher: ``clipped`` learns from rewards (grpo), ``nll`` from solutions (sft)."""
