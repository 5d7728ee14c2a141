"""Where a run can be watched, beside its own files: Prometheus, TensorBoard, W&B, and a trace of its last steps."""
