"""Collects what ``renio doctor`` judges: probes that run on every node of a Ray cluster, and the driver's side of them.

``probes``, ``examiner`` and ``rank`` run on the nodes. They are sent there by value, use nothing of this project, and
answer with plain dictionaries: a node without the project, or with another version of it, can be examined too. ``survey``
drives them.
"""

from actors.doctor.survey import Question, examine

__all__ = ["Question", "examine"]
