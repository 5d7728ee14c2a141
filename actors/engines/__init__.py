"""What runs a model: vLLM engines for generation and scoring, and a teacher in plain torch.

Begin with ``engine.py``, one vLLM engine owned by one thread. ``generator.py``, ``vllm_teacher.py``,
``vllm_hidden_teacher.py`` and ``torch_teacher.py`` are the actors; ``vllm_extension.py`` runs inside vLLM's worker process.
"""
