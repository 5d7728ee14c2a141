"""Every metric's name and unit, what a step's figures are, and the sinks that take them.

Begin with ``registry.py``. Exporters (Prometheus, TensorBoard, W&B, traces) are in ``renio_pipeline.monitoring``.
"""
