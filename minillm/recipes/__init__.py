"""Whole jobs from start to end: what the large commands run."""
