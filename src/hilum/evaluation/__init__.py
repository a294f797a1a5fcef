"""What answers are worth: scores, metrics with intervals, figures and a report."""
