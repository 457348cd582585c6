"""Which function an op runs on: loading the compiled kernels, choosing among them, and the memory they share."""
