"""A training step of GPT-2 124M beside PyTorch's, from the newest committed result."""
from ..figures.measured import rows as measured


def rows() -> list[list[str]]:
    """Candidate, ms, tokens a second, share of the peak, peak memory."""
    table = [["candidate", "ms", "tokens/s", "% of peak", "peak MB"]]
    for row in measured("step", dims="124M B=4 T=256"):
        table.append([row["candidate"], f"{row['median_ms']:,.0f}", f"{row['tokens_per_second']:,.0f}",
                      f"{row['peak_percent']:.0f}", f"{row['peak_rss_mb']:,.0f}"])
    return table
