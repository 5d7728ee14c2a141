"""What a run says to Prometheus, with every metric that it may ever have."""

from __future__ import annotations

import tempfile
import urllib.request

from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.preflight import prepare
from renio_pipeline.stages.engine_text import answered
from tests.fakes.stages import config_of
from tests.unit.monitoring.test_metrics_endpoint import endpoint, fill, large_step


def page() -> str:
    """Its two pages, one after the other; of the second what does not come from vLLM."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(metrics_port=0, run_dir=folder)
        with endpoint(config) as sink:
            metrics = fill(sink, large_step(prepare(config), config, 2), 2)
            special = {name: 0.5 for name in METRICS if name.startswith(("adaptive/", "reward/", "policy/"))}  # of some runs
            sink.write(2, metrics | special)
            with urllib.request.urlopen(f"http://{sink.address}/metrics", timeout=20) as answer:
                text = str(answer.read().decode())
    return text + answered(config.name, {("generator", "0"): True})
