"""Collects what ``renio doctor`` judges: probes that run on every node of a Ray cluster, and the driver's side of them.

Begin with ``survey.py``, which examines the whole cluster. ``probes.py``, ``examiner.py`` and ``rank.py`` run on the nodes:
Ray sends their code by value, they use nothing of this project, and they answer with plain dictionaries. So a node without the
project, or with another version of it, can be examined too. The judgement is in ``renio_pipeline.doctor``.
"""
