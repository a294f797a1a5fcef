"""Whole experiments on top of training: the demo, the comparison, the paper again."""
