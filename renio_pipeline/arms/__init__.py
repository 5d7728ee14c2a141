"""``renio arms``: short paired runs that differ in a few keys, to see which of them teaches more.

    seed 1: arm a, arm b, ...    seed 2: arm a, arm b, ...    ──> a look after each seed ──> stop, or the next seed

Begin with ``race.py``, which runs the cells of that table and stops where an arm is clearly ahead. ``arm.py`` has what an arm
may change, ``cell.py`` one run of one arm, ``sequential.py`` the test, ``results.py`` the files and what is shown. Engines are
kept between runs by ``actors.arms``; nothing here knows them.
"""
