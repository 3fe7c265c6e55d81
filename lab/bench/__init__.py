"""The benchmark: this overlay beside the others, on one topology, in one run."""
