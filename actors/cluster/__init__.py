"""Connecting to Ray, checking the cluster, and placing actors.

Begin with ``address.py``, which settles what cluster a command uses, ``connection.py``, which connects a driver to it, and
``placement.py``: an actor's resources and its placement group. ``joining.py`` finds out whether a cluster lets a driver in,
``own_folders.py`` whether a Ray of a run's own can write where it must.
``checks.py`` and ``node_labels.py`` say whether the cluster has room, ``visible_gpus.py`` whether an actor sees its own GPUs.
``processes.py`` and ``reaper.py`` ensure that no process outlives its run.
"""
