"""Running a program that nobody has read: its limits, its own empty file system, and no way out.

``box`` is the side that is trusted. ``jail``, ``jobs``, ``kernel`` and ``wire`` run inside, in an interpreter of their own
that sees no package but the standard library until the program starts: they import nothing else, so that a start takes
milliseconds.
"""
