"""Verdicts on responses, and verifiers that may hang.

Begin with ``grader.py``, which judges a run's responses, and ``screening.py``, which leaves out rows whose own reference answer
cannot be graded. Both ask one pool of worker processes (``workers.py``, whose processes run ``worker_main.py``), because a
verifier is code that may hang or crash; ``questions.py`` has what a worker can be asked. The verifiers themselves belong to
``renio_pipeline.tasks``.
"""
