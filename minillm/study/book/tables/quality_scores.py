"""The quality filters with their bounds, from the table that cleaning drops by."""
import math

from ....data.cleaning.filters import SCORES


def rows() -> list[list[str]]:
    """Score, least, most, family."""
    def bound(value: float) -> str:
        return "-" if math.isinf(value) else f"{value:,g}"
    return [["score", "least", "most", "rules"]] + [[f"`{name}`", bound(score.low), bound(score.high), score.family]
                                                     for name, score in SCORES.items()]
