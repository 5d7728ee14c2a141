"""``renio study``: the paper's controlled experiments on small models, in one process and without engines.

Begin with ``plan.py`` (what an experiment is, and all runs in order) and ``runner.py`` (one run); ``run.py`` runs what is
missing. ``results.py`` stores raw results; ``findings.py``, ``statistics.py`` and ``regression.py`` evaluate them;
``document.py`` writes the page with ``parts.py``, ``tables.py``, ``recovery_tables.py``, ``plots.py``, ``reading.py`` and
``prose.py``. ``models.py``, ``lessons.py`` and ``marks.py`` make the study's own models, which ``character.py`` measures, and
``recovery.py`` as teachers. The experiments are files in ``configs/study``; the stages are in ``renio_pipeline.in_process``.
"""
