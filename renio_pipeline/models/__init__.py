"""Models: their sizes and tokenizers, and the forward passes in torch.

Begin with ``info.py`` and ``files.py``, which read a model folder but no weights; the driver imports only these two. The
rest needs torch: ``student.py`` and ``teacher.py`` are the two forward passes, ``packed_attention.py`` and ``batching.py``
lay out their batches, ``heads.py`` has the output heads, ``self_checks.py`` compares a loaded model with a plain run of the
same model. The vLLM engines are in ``actors.engines``; what is computed from hidden states is in ``renio_pipeline.objectives``.
"""
