"""Running untrusted programs: with limits, an empty file system of their own, and no network.

Begin with ``box.py``, the trusted side, and ``trial.py``, which decides whether a program passes its tests; ``reading.py``
parses the tests of a row, and ``judgeable.py`` refuses those that cannot be judged. ``jail``, ``jobs``, ``kernel`` and
``programs`` run inside, in a separate interpreter that sees only the standard library until the program starts: they import
nothing else, so that a start takes milliseconds. Tests of a program run in a second box: what crosses between the two is in
``wire`` (data), ``references`` and ``remote`` (objects), ``peer`` and ``ends`` (calls), and ``guard`` (what tests let a
program do). The task that uses this room is ``renio_pipeline.tasks.code``.
"""
