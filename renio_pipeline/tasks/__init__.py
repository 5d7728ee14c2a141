"""Tasks: what a problem is, how it is asked, and how an answer is judged. One file per task, one registry.

Begin with ``protocol.py`` (what a task provides) and ``registry.py`` (``make_task``: a task is known by its name and its
options alone, so that any process can make its own); ``plain.py`` is the smallest task. ``own.py`` wraps a task from the
user's own file. Where rows come from is in ``renio_pipeline.data``; the worker processes that run slow verifiers are in
``renio_pipeline.grading``; the sandbox for programs is ``renio_pipeline.sandbox``.
"""

from renio_pipeline.tasks.protocol import Split, Task, shown_solution
from renio_pipeline.tasks.registry import REGISTRY, make_task

__all__ = ["REGISTRY", "Split", "Task", "make_task", "shown_solution"]
