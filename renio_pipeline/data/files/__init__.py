"""Reads files of rows, a module for each format: ``json_files.py``, ``csv_files.py``, ``arrow.py``; ``compressed.py`` for any.

``located.py`` is what each reader yields: a record and the place that it is from. Which reader a path is for is in
``renio_pipeline.data.sources``, what a record means in ``renio_pipeline.data.records``.
"""
