"""Weights from the trainer to the engines: through host memory, NCCL or CUDA IPC.

Begin with ``sender.py``, the protocol; ``host_sender.py`` and ``native_sender.py`` implement it on the ranks,
``receiver.py`` and ``vllm_client.py`` on the engines' side, ``wire.py`` and ``chunked_arrays.py`` are the format between them.
"""
