"""Experiment trackers: Weights & Biases, MLflow, Trackio and SwanLab, one module each, which imports its library late.

Begin with ``sink.py``: the interface of a tracker, and the sink that keeps its failures and delays from the run. A new tracker
is a module here with a Tracker and a ``check``, a line in ``sinks.py``, a section in the configuration, and an extra.
"""
