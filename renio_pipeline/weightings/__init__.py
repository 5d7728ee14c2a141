"""How much each sample of a step counts: one file a weighting, one line in the registry.

A weighting is one class: its fields are the keys of the configuration's ``weighting`` section, ``weigh`` computes. Begin with
``base.py``, which has what it sees and what it returns, then ``renio.py``. ``step.py`` runs a weighting on a step's batch,
checks what it returns and keeps its state; ``diagnostics.py`` has the pivotal tokens that metrics and reports show, whatever
the weighting is; ``token_factors.py`` has what several weightings share, ``recovery.py``
how evidence of a teacher's recovery moves the keys of ``adaptive.py``. The paper's function itself is
``renio_pipeline.weighting.pivotal_weights``. Importing this package does not import torch.
"""

from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights, weighting_of

__all__ = ["REGISTRY", "ScoredBatch", "State", "Weighting", "Weights", "weighting_of"]

REGISTRY = {  # weighting.type -> the class; the first is the default
    "renio": "renio_pipeline.weightings.renio:Renio",
    "uniform": "renio_pipeline.weightings.uniform:Uniform",
    "iw": "renio_pipeline.weightings.iw:Iw",
    "confidence_gate": "renio_pipeline.weightings.confidence_gate:ConfidenceGate",
    "paced": "renio_pipeline.weightings.paced:Paced",
    "adaptive": "renio_pipeline.weightings.adaptive:Adaptive",
}
