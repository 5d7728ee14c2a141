"""The fixed text of the study's page. It holds no number: those are computed."""

INTRODUCTION = """\
This page repeats the paper's controlled experiments (arXiv {paper}) on models so small that a run takes part of a minute
on one CPU core. Each run executes the pipeline's own step: the same selection, weights, divergence, loss and optimizer,
with stages that live in one process instead of the engines; a test holds both to the same numbers. What is found here is
found for these models and this task. It shows where the method's reasoning holds in a case small enough to inspect, and
says nothing about language models of a useful size.

`{command}` writes this page from the raw results in the same folder (`*.jsonl`, one line per run) and computes the results
that are missing. Every number below is computed from them.

**How to read it.** Every arm of a comparison runs with the same seeds. A seed fixes the problems, their order, and the
random number that each token of each response is sampled with, so two arms differ in what is being compared and in
little else. A difference is the mean over seeds of one arm minus the other, with Student's {level:.0%} interval; *n* is the
number of seeds. A difference is claimed only with at least {pairs} pairs and an interval that excludes zero: the paper's
statement then **held** or is **reversed**; where the paper gives no direction, one arm is **better** or **worse**. Everything
else is *no claim*. The intervals are not corrected for multiple comparisons: of the {compared} comparisons below, about
{by_chance:.0f} would be expected to exclude zero by chance if there were no differences at all."""

TASK = """\
The task is chained sums with every intermediate result written out: the answer to `{problem}` is `{solution}`, and one
character is one token. A response is *slipped* if it has all steps and a wrong result, *guessed* if it answers before the
last step, *unfinished* if it has no final answer, and *marked* if it contains an empty step, which is how a repairing
teacher starts a step again. Held-out problems are never trained on. Each is answered once, sampled from the full
distribution and to its end, whatever was trained on."""

TEACHERS = """\
How a teacher continues a wrong prefix is what it teaches about wrong responses, so there are several teachers: one has seen
clean solutions only, and others were taught to start a slipped step again. Two of those mark nearly as many right steps as
slips: they repeat, rather than notice. One that has more layers was taught until it tells a slip from a right step, and from
it come those that let a share of the slips pass. No loss was taken on the slipped numbers themselves. The students slip and
guess; one has its errors in a single skill instead: it forgets to borrow. These models are made from the embedded ones by
fixed recipes: {recipes}."""

LIMITS = """\
* One task, and small models of one architecture. The order of the arms depends on the teacher, and another task would
  have other teachers.
* Runs are short and are compared after a fixed number of steps. An arm that learns faster need not end higher.
* The students' errors, slips and guesses, were put there by their training and are few in kind; a language model's are
  not.
* The arms that filter draw until their batch is full: for the same number of trained responses they see more responses
  than the other arms.
* Accuracy is measured with one sampled response per problem, which a sharper distribution also raises.
* No teacher here repairs every slip: the table of models says how often each ends correctly after one.
* Settings other than those of the last experiments were not varied. What was changed after the first results were seen, and
  why, is recorded in `configs/study/run.yaml`."""
