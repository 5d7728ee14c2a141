"""Weights from the trainer to the engines: through host memory, NCCL or CUDA IPC.

Begin with ``sender.py``, the protocol that trainer ranks call; ``factory.py`` chooses ``host_sender.py`` or
``native_sender.py`` (vLLM's trainer engines, which reach the engines through ``vllm_client.py``). ``client.py`` calls the
receivers and leaves lost ones out. ``receiver.py`` is the engines' side. ``wire.py`` and ``chunked_arrays.py`` are the format
in between.
"""
