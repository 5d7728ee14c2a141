"""``renio plan``: predicts memory, step time and idle shares of a run, and how to divide the GPUs, before anything starts.

Begin with ``plan.py`` (``Planner``) and ``known.py`` (what it knows, and from where: ``given.py`` the user, ``measured.py`` a
run, ``estimate.py`` a device's data sheet). ``memory.py``, ``rank_memory.py`` and ``needs.py`` compute the memory,
``schedule.py`` replays the step loop in virtual time, ``search.py`` finds the best split, and ``view.py`` prints the plan.
Nothing here starts Ray or reads weights; the checks of a real cluster are in ``actors.cluster``.
"""
