"""From files to prompt ids: sources, rows, prompts and what they may contain.

Begin with ``sources.py`` (which reader a path is for), ``rows.py`` (what a source's rows are), ``records.py`` (how a record
becomes a row, and with ``values.py`` each value text) and ``prompts.py`` (how a row becomes token ids); ``prompt_lengths.py``
looks at every prompt once before a run. Rows are read when they are asked for, so a run's memory does not grow with its data.
What a task makes of a row is in ``renio_pipeline.tasks``; whether a row may be trained on at all is screened in
``renio_pipeline.grading.screening``. ``draw_order.py`` is which row comes when, and ``settling.py`` whether a resume may go on
with the data that there is, by the fingerprints of ``prints.py``. ``files/`` has the readers, ``layouts/`` the layouts of
known data sets, ``mixing/`` several sources in one run.
"""
