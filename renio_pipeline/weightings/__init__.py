"""How a step's samples are weighed: one file a weighting, one registry.

The paper's function itself is ``renio_pipeline.weighting.pivotal_weights``; here is what a run makes of it.
"""
