"""The layouts in which the field keeps its data: nested fields, chat messages, and published data sets.

``paths.py`` finds a field inside of objects, ``chat.py`` reads a list of messages as a problem with what was said before it,
and ``known.py`` derives the fields of published data sets that have them in another form. Their names are in
``renio_pipeline.config.layouts``; which reader a file gets is decided one room up, in ``sources.py``.
"""
