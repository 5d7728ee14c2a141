"""The step and the run: what happens in which order.

Begin with ``step.py``, one optimizer step, then ``run.py``, which repeats it, resumes, evaluates and ends. Everything that
works is behind the protocols of ``renio_pipeline.stages``.
"""
