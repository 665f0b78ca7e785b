"""Real Xen as the specification: our own kernels run on it, and their answers are kept as transcripts."""
