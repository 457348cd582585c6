"""Properties that every model must have: each a short function from Subject to Finding (workbench/verify.py)."""
