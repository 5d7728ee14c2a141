"""The pools, and what goes between them."""

from __future__ import annotations

from typing import Any

from deploy.grafana.panels import lines
from deploy.grafana.queries import POOLS, RATE, RUN, SECONDS, SHARE, gauge, mean, rate


def pools() -> list[Any]:
    events = "increase({}{{{}}}[10m])"
    return [
        lines(
            "Idle share of each pool", SHARE,
            "Share of the step in which the pool's replicas did nothing. The lowest line is the pool to scale next. A pool "
            "above 50 % has twice the replicas that it needs, or waits its turn because max_staleness is 0.",
            (gauge("renio_idle_ratio"), "{{pool}}"), maximum=1, red_above=0.5,
        ),
        lines(
            "Load of each replica", SHARE, "Share of the time in which the replica worked; of a rank, that it trained.",
            (rate("renio_replica_busy_seconds_total", "pool, replica"), "{{pool}} {{replica}}"), maximum=1,
        ),
        lines(
            "Size of each pool", "suffix: replicas",
            "Replicas that serve, and those wanted. Below what is wanted for long: see starting and waiting.",
            (gauge("renio_pool_size", POOLS), "{{pool}} serving"), (gauge("renio_pool_target", POOLS), "{{pool}} wanted"),
        ),
        lines(
            "Replicas on their way", "suffix: replicas",
            "Starting: loading its model. Waiting: the cluster has no room; add nodes, or scale another pool down. Without a "
            "server: a teacher of type http, none of whose servers answers.",
            (gauge("renio_pool_starting", POOLS), "{{pool}} starting"),
            (gauge("renio_pool_waiting", POOLS), "{{pool}} waiting"),
            (gauge("renio_pool_away", POOLS), "{{pool}} without a server"),
        ),
        lines(
            "Samples that wait, and in flight", "suffix: samples",
            "A queue that stays long before one pool: that pool is too small. In flight: what replicas have.",
            (gauge("renio_pool_queue", POOLS), "{{pool}} waiting"),
            (gauge("renio_pool_in_flight", POOLS), "{{pool}} in flight"),
        ),
        lines(
            "Restarts, rejected and repeated", "short",
            "In ten minutes: replicas replaced, samples quarantined (samples/rejected.jsonl), samples trained again after a "
            "lost rank, responses that no verdict came for. All at 0 is healthy; the driver's log has the reason of each.",
            (events.format("renio_pool_restarts_total", POOLS), "{{pool}} replaced"),
            (events.format("renio_samples_rejected_total", RUN), "samples rejected"),
            (events.format("renio_replayed_samples_total", RUN), "samples trained again"),
            (events.format("renio_grading_given_up_total", RUN), "verdicts given up"), red_above=3,
        ),
    ]  # fmt: skip


def staleness_and_sync() -> list[Any]:
    sync = f'{RUN}, stage=~"sync|sync_wait"'
    return [
        lines(
            "Staleness", "suffix: versions",
            "Age of the oldest sample trained on, and max_staleness. At its bound with idle generators: the trainer is what "
            "the run waits for, and generators can give nodes away.",
            (gauge("renio_staleness_max"), "oldest sample"), (gauge("renio_staleness_bound"), "max_staleness"),
        ),
        lines(
            "Weight sync", SECONDS,
            "A sync, the wait in it for responses under way, writing the weights, and the slowest generator's fetch. Much "
            "waiting: in_flight keep. Slow fetch: the network; sync.backend nccl between GPUs.",
            (mean("renio_stage_seconds", "stage", sync), "{{stage}}"),
            (gauge("renio_sync_publish_seconds"), "publish"), (gauge("renio_sync_receive_seconds"), "slowest receive"),
        ),
        lines(
            "Bytes sent", "Bps",
            "Weights to the generators, and the teachers' payload to the trainer. A payload that outgrows the weights: a "
            "smaller objective.k, or objective.type jsd.",
            (f"rate({gauge('renio_sync_bytes_total')}{RATE})", "weights"),
            (f"rate({gauge('renio_payload_bytes_total')}{RATE})", "payload"),
        ),
    ]  # fmt: skip
