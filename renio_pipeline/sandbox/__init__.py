"""Running untrusted programs: with limits, an empty file system of their own, and no network.

Begin with ``box.py``, the trusted side, and ``trial.py``, which decides whether a program passes its tests. ``reading.py``
parses the tests of a row, and ``assert_programs.py`` those that are Python: what they use of the program is in ``used.py``,
what the problem's text defines for both in ``given.py``, and ``judgeable.py`` refuses tests that nothing could judge.

``jail``, ``jobs``, ``kernel``, ``programs`` and ``testing`` run inside, in a separate interpreter that sees only the standard
library until the program starts: they import nothing else, so that a start takes milliseconds. Tests of a program run in a
second box, and the room ``exchange`` is between the two. The task that uses this room is ``renio_pipeline.tasks.code``.
"""
