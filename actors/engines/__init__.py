"""What runs a model: vLLM engines for generation and scoring, and a teacher in plain torch.

Begin with ``specs.py`` (what an engine is built from), ``build.py`` and ``loop.py`` (one vLLM engine, owned by one thread). The
actors are ``generator.py``, ``vllm_teacher.py``, ``vllm_hidden_teacher.py`` (all on ``vllm_replica.py``) and
``torch_teacher.py``. ``vllm_extension.py`` runs inside vLLM's worker processes, with ``host_backend.py``,
``layerwise_reload.py`` and ``vllm_lora.py``. ``adapter_requests.py`` has the requests to an engine with an adapter of a folder.
"""
