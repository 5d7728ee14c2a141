"""From files to prompt ids: sources, rows, prompts and what they may contain.

Begin with ``rows.py`` (where rows come from) and ``prompts.py`` (how one becomes token ids). Rows are read when they are
asked for, so a run's memory does not grow with its data. What a task makes of a row is in ``renio_pipeline.tasks``; whether
a row may be trained on at all is screened in ``renio_pipeline.grading.grader``.
"""
