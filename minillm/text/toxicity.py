"""How likely a text is offensive, by a classifier of English words that another package bundles."""


def toxicity(*texts):
    """Highest probability of offensive language in a text, by alt-profanity-check's bundled model (English). Raises
    ImportError."""
    try:
        from profanity_check import predict_prob
    except ImportError:
        raise ImportError("toxicity needs alt-profanity-check: pip install 'minillm[toxicity]'") from None
    return float(max(predict_prob(list(texts))))
