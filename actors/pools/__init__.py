"""Pools of replicas: dispatch of samples, supervision, replacement, elastic sizes.

Begin with ``base.py`` (dispatch) and ``supervisor.py`` (the life of a slot); ``generators.py`` and ``teachers.py`` are the
two pools, ``weighting.py`` the weighting actor's stage.
"""
