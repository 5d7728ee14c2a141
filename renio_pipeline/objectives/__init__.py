"""What the student is trained on, token by token: one file an objective, one line in the registry, and the kernels beneath.

An objective is one class: its fields are the keys of the configuration's ``objective`` section, ``payload`` says what the
teachers send, ``head_fn`` what the trainer computes, ``working_bytes`` what ``renio plan`` counts. Begin with ``base.py``, then
``sampled.py``, the shortest. The kernels never hold a batch's logits over the vocabulary: ``projection.py`` and ``chunked.py``
are their parts, ``full_vocabulary.py`` and ``token_loss.py`` the two losses, ``fused_kernel.py`` the GPU's kernel.
``without_teacher/`` has the losses of grpo and sft. ``with_reward.py`` adds the verifier's rewards to a distillation;
``trained.py`` says which loss a run trains on. The plain formulae are in ``renio_pipeline.divergence`` and
``renio_pipeline.loss``. Importing this package does not import torch.
"""

from renio_pipeline.config.sections import HIDDEN, NO_TEACHER, SAMPLED, TeacherPayload, top_k
from renio_pipeline.objectives.base import FewEntries, HeadFn, MicroBatch, Objective
from renio_pipeline.objectives.trained import trained_objective

__all__ = [
    "HIDDEN",
    "NO_TEACHER",
    "REGISTRY",
    "SAMPLED",
    "FewEntries",
    "HeadFn",
    "MicroBatch",
    "Objective",
    "TeacherPayload",
    "top_k",
    "trained_objective",
]

REGISTRY = {  # objective.type -> the class; the first is the default
    "top_k_forward_kl": "renio_pipeline.objectives.top_k_forward_kl:TopKForwardKL",
    "jsd": "renio_pipeline.objectives.jsd:Jsd",
    "sampled": "renio_pipeline.objectives.sampled:Sampled",
    "uld": "renio_pipeline.objectives.uld:Uld",
    "clipped": "renio_pipeline.objectives.without_teacher.clipped:Clipped",
    "nll": "renio_pipeline.objectives.without_teacher.nll:Nll",
}
