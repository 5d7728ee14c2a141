"""``renio doctor``: from facts about the nodes of a cluster to findings and a table. Needs neither Ray nor torch.

Begin with ``facts.py`` (what is known about a node), then ``examination.py`` (all checks in order). Each check is in the file
of its subject (``versions``, ``gpus``, ``machine``, ``network``, ``folders``), ``findings.py`` is one row of the table, and
``view.py`` prints it. The facts are collected on the nodes by ``actors.doctor``.
"""
