"""MB/s of encoding beside other tokenizers, from the newest committed result."""
from ..figures.measured import rows as measured

KINDS = ("prose 1 thread", "prose 2 threads", "mixed 1 thread", "mixed 2 threads")


def rows() -> list[list[str]]:
    """Tokenizer, MB/s of a fresh process' first pass and of later ones, by text and threads."""
    speeds = {(row["candidate"], row["dims"], row["direction"]): row["mbs"] for row in measured("tokenizer encode")}
    table = [["tokenizer", *(f"{kind.replace(' thread', ', ').rstrip('s, ')} {state}" for kind in KINDS
                             for state in ("cold", "warm"))]]
    for name in dict.fromkeys(candidate for candidate, *_ in speeds):
        cells = [speeds.get((name, kind, state)) for kind in KINDS for state in ("cold", "warm")]
        table.append([name, *("-" if speed is None else f"{speed:,.0f}" for speed in cells)])
    return table
