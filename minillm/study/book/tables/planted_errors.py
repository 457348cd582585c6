"""Planted errors that gradient checkers find, from the newest committed result."""
from ..figures.measured import rows as measured

CHECKERS = ("minillm", "torch", "jax")


def rows() -> list[list[str]]:
    """Kind of error, how many, told apart from the right pair by each checker."""
    planted = [row for row in measured("gradcheck", *CHECKERS) if row["direction"] == "planted"]
    found = {(row["dims"], row["candidate"]): row for row in planted}
    table = [["error", "planted", "minillm", "PyTorch", "JAX"]]
    for kind in dict.fromkeys(row["dims"] for row in planted):
        mine = [found[kind, checker] for checker in CHECKERS]
        table.append([kind, str(mine[0]["planted"]), *(str(row["told_apart"]) for row in mine)])
    sums = [sum(int(row[column]) for row in table[1:]) for column in range(1, 5)]
    return table + [["all", *(f"{total:,}" for total in sums)]]
