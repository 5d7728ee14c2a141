"""Connecting to Ray, and where actors are placed.

Begin with ``placement.py``: a replica's resources, its process group and its leases. ``processes.py`` and ``reaper.py`` see
to it that no process outlives its run.
"""
