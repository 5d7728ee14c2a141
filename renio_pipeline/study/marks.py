"""The mark by which a teacher repairs a slip."""

# An empty step, followed by the step again. A character that the student never writes would be a poor mark: before the student
# learns it, it learns what all unused characters have in common, and then writes any of them.
REPAIR = ";;"
