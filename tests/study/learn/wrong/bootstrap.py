"""Wrong solutions of `bootstrap`: (what is wrong, text of the reference, its replacement, words of the diagnosis)."""
RATIO = "return numerators[chosen].sum(axis=1) / denominators[chosen].sum(axis=1)"
BOTH = "return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))"
WRONG = [
    ("mean of ratios", RATIO, "return (numerators[chosen] / denominators[chosen]).mean(axis=1)",
     "not a mean of ratios"),
    ("a document counts once", RATIO, "return np.array([numerators[sorted({*row})].sum() / "
     "denominators[sorted({*row})].sum() for row in chosen.tolist()])", "drawn twice counts twice"),
    ("all tokens below", RATIO, "return numerators[chosen].sum(axis=1) / denominators.sum()", "counts twice"),
    ("drawn apart", RATIO, "return numerators[chosen].sum(axis=1) / denominators[chosen[::-1]].sum(axis=1)",
     "counts twice"),
    ("one ratio for all draws", RATIO, "return np.array([numerators[chosen].sum() / denominators[chosen].sum()])",
     "counts twice"),
    ("5% on each side", "0.025)), float(np.quantile(values, 0.975", "0.05)), float(np.quantile(values, 0.95",
     "2.5% out on each side"),
    ("one-sided", "np.quantile(values, 0.025)", "np.quantile(values, 0.05)", "2.5%"),
    ("a normal distribution", BOTH,
     "middle, half = float(values.mean()), 1.96 * float(values.std())\n    return middle - half, middle + half",
     "interval"),
    ("symmetric about the mean", "float(np.quantile(values, 0.975))",
     "2 * float(values.mean()) - float(np.quantile(values, 0.025))", "no symmetry"),
    ("the ends of the list", BOTH,
     "values = np.asarray(values)\n"
     "    return (float(np.interp(0.025 * (len(values) - 1), np.arange(len(values)), values)), "
     "float(np.interp(0.975 * (len(values) - 1), np.arange(len(values)), values)))", "need not be sorted"),
    ("of the loss", "return float(np.exp(low)), float(np.exp(high))", "return low, high", "of it, not of the loss"),
    ("of means of documents", "low, high = interval(resampled_ratios(nats, tokens, chosen))",
     "low, high = interval((nats / tokens)[chosen].mean(axis=1))", "perplexity_interval"),
]
