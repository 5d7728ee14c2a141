"""How well the schedule overlaps its stages, and what the driver costs: the real loop and pools, over engines that sleep.

Generators, teachers and the trainer rank are fakes, named so, whose engines take the time that they are told to and nothing
more: a generator has a fixed number of slots, a teacher scores one batch at a time, a rank trains, and a sync holds every
generator still. All the rest is what a run uses: `Run`, the pools, the weighting actor, the trainer group and its syncs.
"""
