"""What the student is trained on, token by token: one file an objective, one registry, and the kernels beneath.

Begin with ``registry.py``. The kernels compute a divergence over the whole vocabulary without ever holding a batch's
logits: ``projection.py`` and ``chunked.py`` are their parts, ``full_vocabulary.py`` and ``token_loss.py`` the two losses,
``fused_kernel.py`` the GPU's kernel. The plain formulae are in ``renio_pipeline.divergence`` and ``renio_pipeline.loss``.
"""
