"""The pipeline on Ray: actors, pools and the transfer of weights.

Begin with ``launch.py``, which starts a run's actors and hands the step loop its stages; ``run_checks.py`` has what is checked
before. ``engines/`` runs models, ``pools/`` dispatches to replicas and replaces those that die, ``trainer/`` has the DeepSpeed
ranks, ``weight_sync/`` carries weights to the engines, ``cluster/`` connects to Ray and places actors, ``control/`` is a live
run's mailbox, ``doctor/`` examines a cluster. The library in ``renio_pipeline`` does not import this package; only its command
line does.
"""
