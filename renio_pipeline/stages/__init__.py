"""What a step asks of its stages, and what it gets: protocols without an implementation of any engine.

Begin with ``protocols.py``. ``actors`` implements the protocols on Ray, ``renio_pipeline.in_process`` in one process. The
other modules are what both sides share: payload budgets, teacher routing, colocated turns, the limits that engines report,
and which deaths of workers end a run.
"""
