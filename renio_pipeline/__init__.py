"""The library: everything that runs without Ray, vLLM and DeepSpeed. ``actors`` puts it on a cluster.

Read the modules beside this file first: ``types.py`` (the messages), ``weighting.py``, ``divergence.py`` and ``loss.py`` (the
paper's mathematics), then ``loop/step.py`` (one step) and ``config/schema/`` (every key).
"""

__version__ = "0.1.0"
