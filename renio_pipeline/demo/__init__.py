"""The embedded models of ``make demo``, how they were made, and how the demo judges its own run.

Begin with ``check.py``, the demo's criteria; ``make_models.py`` trains the models, with ``tokenizer.py`` and ``training.py``.
``student/`` and ``teacher/`` are the model folders behind ``embedded:student`` and ``embedded:teacher``. The demo's
configuration is ``configs/demo.yaml``; its task is ``renio_pipeline.tasks.arithmetic``.
"""
