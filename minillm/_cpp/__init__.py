"""Where the build puts the compiled extensions: kernels by instruction set, tokenizer, deduplication, CUDA."""
