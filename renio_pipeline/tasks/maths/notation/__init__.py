"""One way to write what differs only in typography. Begin with ``typography.py``.

``characters.py`` has Unicode's signs, ``commands.py`` LaTeX's commands, ``digits.py`` separators of thousands, powers of ten
and repeating decimals. ``scanning.py`` finds brackets. What an answer means is not decided here.
"""
