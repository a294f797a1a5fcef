"""The paper from start to end: its tables and figures, ours beside them."""
