"""The DeepSpeed ranks: training, checkpoints, and the weights that they publish.

Begin with ``supervisor.py``, which replaces a lost group from a checkpoint, and ``group.py``, which calls the ranks;
``rank.py`` is the actor, and ``messages.py`` is what driver and ranks exchange. ``deepspeed_engine.py`` builds a rank's engine,
``micro_batches.py`` and ``offload.py`` serve its steps. ``publisher.py`` decides who receives weights; ``sources.py``,
``weight_source.py``, ``lora.py`` and ``following_teacher.py`` say which. ``rank_checkpoint.py`` and ``checkpoint_writer.py``
write checkpoints.
"""
