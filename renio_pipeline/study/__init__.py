"""The paper's controlled experiments on small models, without engines: see ``renio study``."""
