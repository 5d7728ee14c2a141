"""Connecting to Ray, checking the cluster, and placing actors.

Begin with ``connection.py``, which connects a driver, and ``placement.py``: an actor's resources and its placement group.
``checks.py`` and ``node_labels.py`` say whether the cluster has room, ``visible_gpus.py`` whether an actor sees its own GPUs.
``processes.py`` and ``reaper.py`` ensure that no process outlives its run.
"""
