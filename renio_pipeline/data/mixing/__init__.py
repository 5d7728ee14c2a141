"""Several sources in one run, mixed by weight.

Begin with ``mixed_order.py``, which decides the source of each place in the order; ``origins.py`` has what is known of each
source, ``mixed_rows.py`` their rows, and ``mixed_settling.py`` whether a resume may go on with what the sources hold now.
"""
