"""How fast a run is, and what it waits for."""

from __future__ import annotations

from typing import Any

from deploy.grafana.panels import bars, lines, number
from deploy.grafana.queries import RUN, SECONDS, SHARE, gauge, mean, quantile, rate

HOT = ((0.7, "orange"), (0.9, "red"))  # busy shares


def now() -> list[Any]:
    busy = f"1 - avg_over_time(renio_idle_ratio{{{RUN}}}[5m])"
    done, wanted = gauge("renio_step"), gauge("renio_steps_wanted")
    seconds = f"{gauge('renio_time_step_seconds_sum')} / {gauge('renio_time_step_seconds_count')}"
    return [
        number(
            "Scale this next", SHARE,
            "The pool that is busy for the largest share of a step, and that share over five minutes. Red: nearly all the "
            "time, so one replica more (`renio scale POOL=N`; of the trainer: more ranks at the next start) shortens the "
            "step. Green: no pool holds the others up; a larger max_staleness lets them work at the same time.",
            (f"topk(1, {busy})", "{{pool}}"), HOT, names=True,
        ),
        bars(
            "Busy share of each pool", SHARE,
            "Share of the step in which the pool's replicas worked, on average over five minutes. The longest bar is what to "
            "scale next, the shortest can give its nodes away.",
            (f"sort_desc({busy})", "{{pool}}"), HOT,
        ),
        number("Progress", SHARE, "Steps done, of those wanted.", (f"{done} / {wanted}", "")),
        number(
            "Time left", SECONDS, "Steps that are left, at this run's mean step time; evaluations and checkpoints come on top.",
            (f"({wanted} - {done}) * {seconds}", ""),
        ),
        number(
            "Alerts", "short", "Firing now; Prometheus' page /alerts has each one's text and what to do about it.",
            ('count(ALERTS{alertstate="firing", run="$run"}) or vector(0)', ""), ((1, "red"),),
        ),
    ]  # fmt: skip


def throughput() -> list[Any]:
    return [
        lines(
            "Samples per second, by pool", "suffix: samples/s",
            "Written, scored and trained on. All pools do the same samples, so lines that lie apart for long mean a queue "
            "that grows.",
            (rate("renio_replica_samples_total", "pool"), "{{pool}}"),
        ),
        lines(
            "Tokens per second, by pool", "suffix: tokens/s",
            "Response tokens written; prompt and response tokens scored and trained on.",
            (rate("renio_replica_tokens_total", "pool"), "{{pool}}"),
        ),
        lines(
            "Tokens per second, by replica", "suffix: tokens/s",
            "A replica far below its fellows is on a slow or shared node; one at 0 hangs, and faults.* decides when it is "
            "replaced.",
            (rate("renio_replica_tokens_total", "pool, replica"), "{{pool}} {{replica}}"),
        ),
    ]  # fmt: skip


def time_of_a_step() -> list[Any]:
    stages = f'{RUN}, stage=~"generate|score|weigh|train|turns|sync"'
    inner = f'{RUN}, stage=~"first_response|sync_wait|turn_back"'
    last = f"({gauge('renio_step_timestamp_seconds')} > {gauge('renio_held_timestamp_seconds')})"
    return [
        lines(
            "Where a step's time goes", SECONDS,
            "Mean seconds of each stage. Stages overlap (scoring begins with the first response; with max_staleness "
            "everything does), so together they may be longer than the step. The largest is what to make faster.",
            (mean("renio_stage_seconds", "stage", stages), "{{stage}}"), stacked=True, width=12,
        ),
        lines(
            "Parts of stages", SECONDS,
            "Of generation: until the first response. Of the sync: waiting for responses under way (in_flight: keep does not "
            "wait). Of colocated turns: the way back.",
            (mean("renio_stage_seconds", "stage", inner), "{{stage}}"), width=6,
        ),
        lines(
            "Step time", SECONDS,
            "Median and 95th percentile of the interval's steps, and how long it is since the last one ended. The latter "
            "growing past ten steps is an alert.",
            (quantile(0.5, "renio_time_step_seconds"), "median"), (quantile(0.95, "renio_time_step_seconds"), "95 %"),
            (f"time() - ({last} or {gauge('renio_held_timestamp_seconds')})", "since the last"), width=6,
        ),
    ]  # fmt: skip
