"""The mailbox of a live run: a named actor through which the command line reaches the driver.

``mailbox.py`` is the actor, ``live_runs.py`` finds the runs of a cluster, ``attach.py`` talks to one, ``clusters.py``
says in which clusters to look. What the commands mean is in ``renio_pipeline.control``.
"""
