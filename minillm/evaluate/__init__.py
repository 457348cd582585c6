"""Evaluation: perplexity, multiple choice, exact match, memorization, safety; confidence intervals; the model card."""
