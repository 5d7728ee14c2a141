"""Classes of the user's own: ``own_file.py`` loads one from a file, ``own_modules.py`` brings the modules beside it, and
``own_copies.py`` keeps these files with a run."""
