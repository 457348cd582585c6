"""From text to batches: `corpus` and `stories` (text we bring), `extract` (the reader's own), `shards`, `loader`."""
