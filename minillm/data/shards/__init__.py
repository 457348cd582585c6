"""Token shards: writing, reading, and batches as a pure function of (seed, step)."""
