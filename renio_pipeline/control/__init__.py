"""Steering a live run: pause, resume, scale, stop, status.

Begin with ``protocol.py`` and ``commands.py``. The mailbox actor through which commands reach a run is in
``actors.control.mailbox``; the autoscaler decides here (``autoscale_policy.py``) and acts through the pools.
"""
