"""What the pipeline knows of a model: its sizes and tokenizer, and its forward passes in torch.

Begin with ``info.py`` and ``files.py``, which read a model folder and no weights; the driver imports these two alone. The
rest runs where torch is: ``student.py`` and ``teacher.py`` are the two forward passes, ``packed_attention.py`` and
``batching.py`` lay out their batches, ``heads.py`` has output heads, ``self_checks.py`` compares a loaded model with the
same model run plainly. vLLM engines are in ``actors.engines``.
"""
