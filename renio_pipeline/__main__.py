"""``python -m renio_pipeline``: for clusters that do not have the ``renio`` script."""

from renio_pipeline.cli import main

raise SystemExit(main())
