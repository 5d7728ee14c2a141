"""Where a run can be watched, besides its own files: Prometheus, TensorBoard, trackers, the console, a trace of its last steps.

Begin with ``sinks.py`` (which sinks a run has) and ``prometheus.py`` (the scrape target). ``figures.py``, ``distributions.py``,
``replicas.py``, ``live.py``, ``limits.py`` and ``info.py`` collect its series, ``endpoint.py`` serves them, ``engines.py``
passes vLLM's own metrics on; ``trackers`` has W&B, MLflow, Trackio and SwanLab; ``trace.py`` with ``spans.py`` writes the
Perfetto trace. The names and units of metrics, and the interface of a sink, are in ``renio_pipeline.metrics``; dashboards and
alerts are in ``deploy/``.
"""
