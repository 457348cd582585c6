"""Wrong solutions of `bits_per_byte`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
MEAN = "mean = sum(float(losses.sum()) for losses in nats) / sum(len(losses) for losses in nats)"
BITS = 'return total / math.log(2) / sum(len(text.encode("utf-8")) for text in texts)'
WRONG = [
    ("powers of two", "math.exp(mean)", "2.0 ** mean", "perplexity 10"),
    ("the loss itself", "return math.exp(mean) if mean < 700 else math.inf", "return mean", "perplexity 10"),
    ("mean of the documents' means", MEAN, "mean = float(np.mean([losses.mean() for losses in nats]))",
     "all tokens of all documents"),
    ("mean of the perplexities", MEAN, "mean = math.log(np.mean([np.exp(losses).mean() for losses in nats]))",
     "all tokens of all documents"),
    ("overflow", "math.exp(mean) if mean < 700 else math.inf", "math.exp(mean)", "OverflowError"),
    ("nats, not bits", "total / math.log(2) /", "total /", "mind nats and bits"),
    ("ln 2 on the wrong side", "total / math.log(2) /", "total * math.log(2) /", "mind nats and bits"),
    ("per token", BITS, "return total / math.log(2) / sum(len(losses) for losses in nats)", "not by its tokens"),
    ("characters", 'len(text.encode("utf-8"))', "len(text)", "not characters"),
    ("UTF-16", 'text.encode("utf-8")', 'text.encode("utf-16-le")', "over 8 bytes in UTF-8"),
    ("mean of the documents' ratios", BITS, "return float(np.mean([losses.sum() / math.log(2) / len(text.encode()) for "
     "losses, text in zip(nats, texts)]))", "not the mean of the documents' ratios"),
    ("documents without tokens left out", "for text in texts)", "for losses, text in zip(nats, texts) if len(losses))",
     "still has its bytes"),
]
