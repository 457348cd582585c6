"""Toxicity of English text: the probability of offensive language, by alt-profanity-check's bundled classifier."""


def toxicity(*texts: str) -> float:
    """The highest probability of offensive language in any of the texts. Raises ImportError without the extra."""
    try:
        from profanity_check import predict_prob
    except ImportError:
        raise ImportError("toxicity needs alt-profanity-check: pip install 'minillm[toxicity]'") from None
    return float(max(predict_prob(list(texts))))
