"""From verdicts to advantages: how much better each response is than it had to be.

``advantages.py`` has the mathematics; ``step.py`` applies it to a step's batch as the configuration says, with its metrics, and
says which samples learn from the teacher. The policy gradient that takes advantages is ``renio_pipeline.policy_loss``, and the
objectives around it are in ``renio_pipeline.objectives``. Nothing here imports torch: it runs in the driver.
"""

from renio_pipeline.rewards.step import Rewarded, reward_step

__all__ = ["Rewarded", "reward_step"]
