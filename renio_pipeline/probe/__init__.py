"""``renio probe``: what a teacher would teach about a student's responses, measured before a run.

    student's responses ──> teacher's scores ──> pivotal tokens ──> the teacher goes on from there ──> numbers ──> advice

Begin with ``run.py``, which asks the stages in that order. ``responses.py`` has a scored response, ``selection.py`` says from
which the teacher goes on, ``continuations.py`` has it go on, ``numbers.py`` makes findings with intervals of all that,
``advice.py`` is the table of rules from findings to keys, ``results.py`` and ``table.py`` are the files and what is shown.
``during_run.py`` is the small probe of one step that the weighting ``adaptive`` goes by, while a run trains. The
engines are started by ``actors.probing`` or live in one process; nothing here knows which.
"""
