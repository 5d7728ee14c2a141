"""What single types of teachers can be asked for: ``served_teachers.py`` has the checks of those that are served elsewhere,
``recorded_teachers.py`` of those whose signals were recorded before."""
