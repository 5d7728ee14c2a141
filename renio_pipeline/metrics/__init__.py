"""Every metric's name and unit, what a step's figures are, and the interface of the sinks that take them.

Begin with ``registry.py`` (names and units), then ``step_metrics.py`` (from a step's result to figures and sample records)
and ``sink.py`` (``metrics.jsonl``). Exporters (Prometheus, TensorBoard, W&B, traces) are in ``renio_pipeline.monitoring``;
the metrics of a generated answer set are in ``renio_pipeline.evaluation``.
"""
