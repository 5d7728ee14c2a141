"""Pools of replicas: dispatch of samples, supervision, replacement, elastic sizes.

Begin with ``base.py`` (dispatch of ``jobs.py``) and ``supervisor.py`` (the life of a slot's ``worker.py``); ``waiting.py`` has
guarded waits and the heartbeat. ``generators.py`` and ``teachers.py`` are the two pools; the latter scores (``scoring.py``) and
writes texts (``continuing.py``). ``kinds.py`` says what their workers are, ``probe.py`` compares a teacher's replicas,
``colocated.py`` lets generators share the trainer's GPUs. ``weighting.py`` is the stage of the weighting actor, ``weigher.py``.
"""
