"""The paper's experiment: the same training in several places, side by side."""
