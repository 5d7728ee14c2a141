"""Running untrusted programs: with limits, an empty file system of their own, and no network.

Begin with ``box.py``, the trusted side, and ``trial.py``, which decides whether a program passes its tests; ``reading.py``
parses the tests of a row. ``jail``, ``jobs``, ``kernel``, ``programs`` and ``wire`` run inside, in a separate interpreter that
sees only the standard library until the program starts: they import nothing else, so that a start takes milliseconds. The task
that uses this room is ``renio_pipeline.tasks.code``.
"""
