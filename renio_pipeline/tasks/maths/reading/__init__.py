"""From a text in one notation to an answer. Begin with ``structure.py`` (lists, equations, sets, brackets, matrices).

``scalars.py`` reads a single value: a number (``numbers.py``), one with a unit (``units.py``, ``unit_table.py``), a word, or an
expression, which math-verify parses (``formulas.py``). ``size.py`` says what is too large to be parsed, ``rationals.py``
computes what is rational.
"""
