"""``renio push``: a run's model or adapter on the Hugging Face hub, with a card that says how it was made.

Begin with ``source.py`` (what is published), then ``card.py`` (the model card) and ``upload.py`` (one commit, checked
afterwards). ``markdown.py`` keeps what configurations contain from being read as Markdown. Nothing here imports torch.
"""
