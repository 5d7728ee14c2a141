"""What STUDY.md says whatever was found. It holds no number: those are computed."""

INTRODUCTION = """\
The paper's controlled experiments (arXiv {paper}), on models so small that a run takes part of a minute on one core of
a CPU. Each run is made of the pipeline's own steps: the same selection, weights, divergence, loss and optimizer, with
stages that live in one process in the place of the engines; a test holds both to the same numbers. What is found here
is found for these models and this task. It shows where the method's reasoning holds in a case that can be looked into,
and nothing about language models of a useful size.

`{command}` makes this page from the raw results in `{folder}/`, a line a run, and computes what is missing there. Every
number below is computed from them.

**How to read it.** Every arm of a comparison is run with the same seeds, and a seed fixes the problems, their order,
and the chance that each token of each response meets, so that two arms differ in what is asked about and in little
else. A difference is the mean over the seeds of one arm less the other, with Student's interval at {level:.0%}; *n*
counts the seeds. It is claimed only at {pairs} or more pairs and where its interval leaves out zero: what the paper
says then **held** or is **reversed**, and where the paper gives no direction one arm is **better** or **worse**. All
else is *no claim*. Each interval is for itself: of the {compared} comparisons below about {by_chance:.0f} would be
expected to leave out zero by chance if nothing differed at all."""

TASK = """\
Chained sums with every intermediate result written out: `{problem}` is answered by `{solution}`, and one character is
one token. A response is *slipped* if it has all steps and a wrong result, *guessed* if it answers before the last step,
*unfinished* if it has no final answer, and *marked* if it holds an empty step, by which a repairing teacher begins a
step again. Held-out problems are never trained on; each is answered once, sampled from the whole distribution, to the
end, whatever was trained on."""

TEACHERS = """\
How a teacher goes on from a wrong prefix is what it teaches about wrong responses, so there are several: one that has
seen clean solutions alone, and others that were taught, for a while or for longer, to begin a slipped step again. No
loss was taken on the slipped numbers themselves. These models are made from the embedded ones by fixed recipes,
{recipes}."""

LIMITS = """\
* One task, one pair of architectures, one size. The order of the arms depends on the teacher, and another task would
  bring other teachers.
* Runs are short, and are compared after one number of steps. An arm that learns faster need not end higher.
* The students' errors were put there by their training, slips and guesses, and are few in kind; those of a language
  model are not.
* The arms that filter draw until their batch is whole: they see more responses than the others for as many that they
  learn from.
* Accuracy is that of one sampled response a problem, which a sharper distribution raises too.
* No teacher here repairs every slip: the table of models says how often each ends right after one.
* Settings other than those of the last experiments were not varied. What was changed after first results had been seen,
  and why, stands in `configs/study/run.yaml`."""
