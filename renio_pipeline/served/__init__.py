"""A teacher that is served elsewhere: what is asked of its servers, how they are examined, and what happens when one is away.

Begin with ``spec.py`` (what is known of the servers) and ``api.py`` (an interface, with one file each: ``vllm.py``,
``sglang.py``, ``openai.py``). ``server.py`` sends one request to one server, ``client.py`` spreads requests over all of them,
``examination.py`` decides whether a server may teach, ``figures.py`` counts. No model is loaded here, and nothing here knows of
Ray: the actor around it is ``actors.engines.http_teacher``.
"""
