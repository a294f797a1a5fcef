"""A recipe becomes a model: learner, loop, run folder, export, sealed bundle."""
