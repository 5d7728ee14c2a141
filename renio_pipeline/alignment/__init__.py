"""A teacher with another tokenizer: it reads the student's text in its own tokens, and its scores are laid on the student's.

Begin with ``spans.py``, the whole method in NumPy: from the bytes of both sides' tokens to the spans that they share, and from
the teacher's log-probabilities to one for each of the student's tokens. ``token_bytes.py`` says which bytes a token stands for,
``reading.py`` how a teacher cuts given bytes into its own tokens, and ``retokeniser.py`` joins them for one response. Prompts
are not aligned: each side has its own (``renio_pipeline.data``). The stage is ``renio_pipeline.stages.other_tokenizer``.
"""
