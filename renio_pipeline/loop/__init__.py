"""The step and the run: what happens in which order.

Begin with ``step.py``, one optimizer step, then ``run.py``, which repeats it, evaluates, writes checkpoints and rolls back;
``restart_epoch.py`` defines what a restart epoch is, and ``probing.py`` is how the weighting ``adaptive`` sees the run. The
engines are behind the protocols of ``renio_pipeline.stages``.
"""
