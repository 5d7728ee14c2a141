"""Whether two answers are equal. Begin with ``equality.py``.

Expressions are compared by their values at points (``expressions.py``, ``points.py``, ``evaluation.py``), decimals as rounded
values (``rounding.py``), equations up to a factor (``relations.py``), inequalities and intervals as sets (``sets.py``).
``lists.py``, ``words.py``, ``ratios.py`` and ``quantities.py`` (units) have what their names say.
"""
