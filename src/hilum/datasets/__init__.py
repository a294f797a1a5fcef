"""Which films, of whom, for what: from a source to a manifest, a split and a cache."""
