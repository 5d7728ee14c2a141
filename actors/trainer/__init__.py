"""The DeepSpeed ranks: training, checkpoints, and what they publish.

Begin with ``supervisor.py``, which replaces a lost group from a checkpoint, and ``group.py``, which speaks to the ranks;
``rank.py`` is the actor.
"""
