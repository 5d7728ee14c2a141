"""A run's files: where they are, how checkpoints are written and found, what a resume reads.

Begin with ``directory.py``. ``lease.py`` decides which process writes there; ``fence.py`` is what its writers check. Nothing
here knows the step loop; ``renio_pipeline.ledger`` proves from these files that every sample was trained on exactly once.
"""
