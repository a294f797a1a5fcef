"""The report of an evaluation, section by section."""
