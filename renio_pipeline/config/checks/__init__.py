"""Combinations of keys that cannot give a run. Each error says why, and which key to change."""

from __future__ import annotations

from renio_pipeline.config.checks.batch import check_batch, check_endpoint, check_filter
from renio_pipeline.config.checks.methods import check_method, check_reason_first, check_variants
from renio_pipeline.config.checks.placement import check_deterministic, check_ipc, check_placement, check_schedule, check_sync
from renio_pipeline.config.checks.pools import check_lora, check_pools
from renio_pipeline.config.checks.teachers import check_sources_of, check_teachers
from renio_pipeline.config.combining import check_combine
from renio_pipeline.config.off_policy import check_off_policy
from renio_pipeline.config.own_tokenizers import check_own_tokenizers
from renio_pipeline.config.run_config import RunConfig


def check_combinations(config: RunConfig) -> None:
    """Raises ValueError for the first one found."""
    for check in (
        check_batch,
        check_variants,
        check_filter,
        check_teachers,
        check_combine,
        check_own_tokenizers,
        check_sources_of,
        check_method,
        check_reason_first,
        check_off_policy,
        check_lora,
        check_pools,
        check_sync,
        check_ipc,
        check_placement,
        check_schedule,
        check_deterministic,
        check_endpoint,
    ):
        check(config)
