"""``renio eval``: data sets and benchmark suites, metrics with intervals, paired comparisons, and the result files.

Begin with ``sets.py`` (what is asked) and ``answers.py`` (how one model answers everything). ``asking.py`` checks a model
against the data sets, ``metrics.py`` measures its answers, ``bootstrap.py`` gives the intervals, ``compare.py`` the paired
tests, ``results.py`` and ``records.py`` the files, ``table.py`` the tables. The generators are pools of ``actors``, started by
``renio_pipeline.cli.evaluate``; the held-out accuracy during training is in ``renio_pipeline.loop.held_out``.
"""
