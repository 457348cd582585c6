"""Toxicity of English text: the probability of offensive language, by alt-profanity-check's bundled linear classifier."""


def toxicity(*texts: str) -> float:
    """The highest probability of offensive language in a text of several. Raises ImportError without the extra `toxicity`."""
    try:
        from profanity_check import predict_prob
    except ImportError:
        raise ImportError("toxicity needs alt-profanity-check: pip install 'minillm[toxicity]'") from None
    return float(max(predict_prob(list(texts))))
