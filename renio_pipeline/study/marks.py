"""How a slip that is repaired looks."""

# An empty step, and then the step again. A mark that the student never wrote would have to be learnt first, and whatever it
# shares with all other characters that were never written is learnt before it: students then write those, which mean nothing.
REPAIR = ";;"
