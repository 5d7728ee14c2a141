"""A run's configuration: its keys, how files and overrides are read, and which combinations cannot give a run.

Begin with ``schema/``, which has every section and its keys, and ``run_config.py``, which puts them together.
``loading.py`` reads YAML and overrides, ``explain.py`` words what is wrong with them, ``checks.py`` refuses combinations,
``engine_refusals.py`` names the vLLM options that would break what the pipeline assumes. ``variants.py`` finds the classes that
a ``type`` chooses, ``sections.py`` has what is read of them here, and ``own/`` loads a user's class from a file.
``paths.py`` expands ``~``, ``yaml_text.py`` writes values as they are read again, and ``nearest.py`` guesses at misspelt words.
What the values do is elsewhere: this room imports nothing of the project, except that ``variants.py`` looks up weightings and
objectives by name.
"""

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.loading import load, load_to_resume, parse
from renio_pipeline.config.run_config import RunConfig

__all__ = ["ConfigError", "RunConfig", "load", "load_to_resume", "parse"]
