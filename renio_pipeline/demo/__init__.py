"""The embedded models of ``make demo``, how they were made, and how the demo judges its own run.

``student/`` and ``teacher/`` are model folders that ``embedded:student`` and ``embedded:teacher`` name.
"""
