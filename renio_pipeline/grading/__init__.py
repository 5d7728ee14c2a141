"""Verdicts on responses, and verifiers that may hang.

Begin with ``grader.py``. Verifiers run in a pool of processes (``workers.py``, whose processes run ``worker_main.py``),
because a verifier is code that may hang or crash. ``screening.py`` leaves out rows whose own reference answer cannot be
graded. The verifiers themselves belong to ``renio_pipeline.tasks``.
"""
