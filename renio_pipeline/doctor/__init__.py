"""What ``renio doctor`` makes of a cluster: facts of the nodes in, findings and a table out. Needs neither Ray nor torch.

Begin with ``facts``, then ``examination``. ``actors.doctor`` collects the facts.
"""
