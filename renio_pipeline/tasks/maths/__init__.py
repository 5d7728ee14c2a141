"""Mathematics: is a response's final answer equal to the row's answer?

``task.py`` is the task, ``said.py`` finds what a response says last. An answer then goes through three rooms: ``notation/``
writes it in one way, ``reading/`` makes an ``answers.Answer`` of it, and ``comparing/`` decides whether two of these are equal.
``votes.py`` writes equal answers as equal text.
"""

from renio_pipeline.tasks.maths.said import last_box
from renio_pipeline.tasks.maths.task import Maths

__all__ = ["Maths", "last_box"]
