"""One file for each kind of source: where its films, labels and patients stand."""
