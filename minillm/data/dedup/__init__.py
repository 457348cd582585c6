"""Exact and near-duplicate removal: MinHash, locality-sensitive hashing, external sorting."""
