"""From text to training batches: sources, cleaning, deduplication, token shards."""
