"""The dashboard's rows: what a run does, how fast, what it waits for, and what it learns."""

from __future__ import annotations

from typing import Any

from deploy.grafana.panels import bars, distribution, lines, number

RUN = 'run="$run"'
POOLS = 'run="$run", pool=~"$pool"'
RATE = "[$__rate_interval]"
SHARE, SECONDS, BYTES, NATS = "percentunit", "s", "bytes", "suffix: nats"
HOT = ((0.7, "orange"), (0.9, "red"))  # busy shares


def rate(counter: str, by: str, where: str = POOLS) -> str:
    return f"sum by ({by}) (rate({counter}{{{where}}}{RATE}))"


def mean(histogram: str, by: str = "run", where: str = RUN) -> str:
    """Of a histogram's values in the interval."""
    return f"{rate(f'{histogram}_sum', by, where)} / {rate(f'{histogram}_count', by, where)}"


def quantile(q: float, histogram: str) -> str:
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', 'le', RUN)})"


def gauge(name: str, where: str = RUN) -> str:
    return f"{name}{{{where}}}"


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
            "Starting: loading its model. Waiting: the cluster has no room; add nodes, or scale another pool down.",
            (gauge("renio_pool_starting", POOLS), "{{pool}} starting"),
            (gauge("renio_pool_waiting", POOLS), "{{pool}} waiting"),
        ),
        lines(
            "Samples that wait, and in flight", "suffix: samples",
            "A queue that stays long before one pool: that pool is too small. In flight: what replicas have.",
            (gauge("renio_pool_queue", POOLS), "{{pool}} waiting"),
            (gauge("renio_pool_in_flight", POOLS), "{{pool}} in flight"),
        ),
        lines(
            "Restarts, rejected and repeated", "short",
            "In ten minutes: replicas replaced, samples set aside (samples/rejected.jsonl), samples trained again after a "
            "lost rank, responses that no verdict came for. All at 0 is well; the driver's log has the reason of each.",
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


def learning() -> list[Any]:
    return [
        lines(
            "Loss and divergence", NATS,
            "The weighted loss, and the mean divergence of student and teacher without weights. Rising for long: a lower "
            "trainer.lr.",
            (gauge("renio_loss"), "loss"), (gauge("renio_divergence"), "divergence"),
        ),
        lines(
            "Gradient norm", "short",
            "Before clipping. Always far above trainer.max_grad_norm: the step's length is the clip's alone; lower "
            "trainer.lr.",
            (gauge("renio_grad_norm"), "gradient norm"),
        ),
        lines(
            "Accuracy", SHARE,
            "Share of the step's responses that the verifier calls correct, and held-out accuracy where it was measured.",
            (gauge("renio_reward_accuracy_ratio"), "of the step"), (gauge("renio_eval_accuracy_ratio"), "held out"), maximum=1,
        ),
        lines(
            "Response length", "suffix: tokens",
            "Of the interval's responses. A 95th percentile at max_response_tokens: raise it, or see why responses do not "
            "end.",
            (quantile(0.5, "renio_response_length_tokens"), "median"), (quantile(0.95, "renio_response_length_tokens"), "95 %"),
            (mean("renio_response_length_tokens"), "mean"), (gauge("renio_eval_response_tokens"), "held out, mean"),
        ),
        lines(
            "Truncated, kept, padding", SHARE,
            "Responses that reached max_response_tokens; those that the filter kept; the trainer's computed tokens that were "
            "padding (a larger trainer.micro_batch_tokens packs better).",
            (gauge("renio_response_truncated_ratio"), "truncated"), (gauge("renio_filter_kept_ratio"), "kept"),
            (gauge("renio_tokens_padding_ratio"), "padding"), maximum=1,
        ),
        lines(
            "Mismatch of generator and trainer", NATS,
            "Difference of their log-probabilities on the tokens trained on, and half of weighting.threshold: above it "
            "numerics alone could make tokens pivotal; set student_logprobs trainer.",
            (gauge("renio_mismatch_logprob_abs_mean"), "mean"), (gauge("renio_mismatch_logprob_abs_max"), "largest"),
            (f"{gauge('renio_pivotal_threshold_nats')} / 2", "half the threshold"),
        ),
    ]  # fmt: skip


def weights() -> list[Any]:
    effective = f"{gauge('renio_weights_effective_sample_size')} / {gauge('renio_step_samples')}"
    return [
        distribution(
            "Sample weights", "none",
            "How many samples had which weight; the mean is 1. All in the lowest and the highest cell: a few samples are the "
            "gradient.",
            "renio_sample_weight", RUN,
        ),
        distribution(
            "Log-ratio of student to teacher", "suffix: nats",
            "Of each token; those above weighting.threshold are pivotal, and weighting.clip bounds what one may count.",
            "renio_log_ratio_nats", RUN,
        ),
        lines(
            "Effective sample size", SHARE,
            "(sum w)² / sum w², as a share of the step's samples. Below a tenth is an alert: lower weighting.clip, or raise "
            "batch_size.",
            (effective, "of the step's samples"), maximum=1, width=6,
        ),
        lines(
            "Pivotal tokens", SHARE,
            "Share of response tokens whose log-ratio is above weighting.threshold. Near 0: weights no longer tell samples "
            "apart; near 1: the threshold is too low for this pair of models.",
            (gauge("renio_pivotal_fraction"), "pivotal"), maximum=1, width=6,
        ),
        lines(
            "Largest and smallest weight", "none", "Of the step; normalised so that the mean is 1.",
            (gauge("renio_weights_max"), "largest"), (gauge("renio_weights_min"), "smallest"), width=6,
        ),
        lines(
            "Do weights know wrong answers?", "none",
            "AUROC of the raw weight as a sign of an answer that is not correct: 0.5 is chance, 1 perfect. Only where tasks "
            "have verifiers.",
            (gauge("renio_weights_auroc"), "AUROC"), maximum=1, width=6,
        ),
    ]  # fmt: skip


def engines() -> list[Any]:
    by = "sum by (pool) ({}{{{}}})"
    return [
        lines(
            "Requests in the engines", "suffix: requests",
            "vLLM's own count. Many waiting with a full cache: more replicas, or more "
            "generator.engine.gpu_memory_utilization.",
            (by.format("vllm:num_requests_running", POOLS), "{{pool}} running"),
            (by.format("vllm:num_requests_waiting", POOLS), "{{pool}} waiting"),
        ),
        lines(
            "Cache of keys and values", SHARE,
            "Use of each engine's cache. At 1 requests are set back and computed again.",
            (gauge("vllm:kv_cache_usage_perc", POOLS), "{{pool}} {{replica}}"), maximum=1, red_above=0.95,
        ),
        lines(
            "Tokens through the engines", "suffix: tokens/s", "Written by generators, and read by all, as vLLM counts them.",
            (rate("vllm:generation_tokens_total", "pool"), "{{pool}} written"),
            (rate("vllm:prompt_tokens_total", "pool"), "{{pool}} read"),
        ),
        lines(
            "Set back for lack of cache", "suffix: requests/s",
            "Preemptions. Above 0 for long: lower generator.engine.max_num_seqs, or give the cache more memory.",
            (rate("vllm:num_preemptions_total", "pool"), "{{pool}}"), width=12,
        ),
        lines(
            "Engines that answer", "suffix: engines",
            "That gave their metrics when last asked. Fewer than serve: one is very slow, or gone.",
            (by.format("renio_engine_up", POOLS), "{{pool}}"), width=12,
        ),
    ]  # fmt: skip


def nodes() -> list[Any]:
    """Ray's own metrics know nothing of runs: these are of the whole cluster."""
    return [
        lines(
            "GPU use", "percent", "Of each GPU, by Ray. Idle GPUs of a busy pool: its batches are too small.",
            ("ray_node_gpus_utilization", "{{ip}} {{GpuIndex}}"), maximum=100,
        ),
        lines(
            "GPU memory", SHARE,
            "Used share. Full with trainer ranks: a smaller trainer.micro_batch_tokens; with engines: gpu_memory_utilization.",
            ("ray_node_gram_used / (ray_node_gram_used + ray_node_gram_available)", "{{ip}} {{GpuIndex}}"),
            maximum=1, red_above=0.95,
        ),
        lines(
            "CPU use", "percent", "Of each node. At 100 % of a CPU node, replicas take turns.",
            ("ray_node_cpu_utilization", "{{ip}}"), maximum=100,
        ),
        lines(
            "Memory of nodes", SHARE,
            "Used share. At 95 % Ray kills workers: raise pools.POOL.cpus, so that fewer are on a node.",
            ("ray_node_mem_used / ray_node_mem_total", "{{ip}}"), maximum=1, red_above=0.92,
        ),
        lines(
            "Memory of processes", BYTES,
            "Resident, by what they are; shared pages count for each. The driver's line is its peak.",
            ("sum by (Component) (ray_component_rss_bytes)", "{{Component}}"),
            (gauge("renio_memory_driver_peak_bytes"), "driver, peak"),
        ),
        lines(
            "Disk", SHARE,
            "Used share: of each node's disk, and of the file system of the run's directory. Above 90 % is an alert: lower "
            "checkpoint.keep, delete old runs or sessions.",
            ("ray_node_disk_utilization_percentage / 100", "{{ip}}"),
            (f"1 - {gauge('renio_disk_free_bytes')} / {gauge('renio_disk_size_bytes')}", "run directory"),
            maximum=1, red_above=0.9,
        ),
    ]  # fmt: skip


ROWS = {
    "Now": now, "Throughput": throughput, "Where a step's time goes": time_of_a_step, "Pools": pools,
    "Staleness and weight sync": staleness_and_sync, "Learning": learning, "Weights": weights,
    "Engines, by vLLM": engines, "Nodes, by Ray": nodes,
}  # fmt: skip
