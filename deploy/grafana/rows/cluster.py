"""What lies below: the engines by vLLM's own metrics, the nodes by Ray's."""

from __future__ import annotations

from typing import Any

from deploy.grafana.panels import lines
from deploy.grafana.queries import BYTES, POOLS, SHARE, gauge, rate


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
    # Ray names a worker by its actor's class and the method that it is in.
    kind = r'label_replace(ray_component_rss_bytes, "kind", "$1", "Component", "(?:.*/)?((?:ray::)?\\w+).*")'
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
            (f"sum by (kind) ({kind})", "{{kind}}"),
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
