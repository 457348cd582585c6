"""Gradient checks of every op on every backend, and of a whole model, as one table."""
from collections.abc import Sequence

import numpy as np

from ..config import GPTConfig
from ..gradcheck import as_dict, check_model, error_curve, gradcheck
from ..kernels.select import OPS, Dims, Spec, check_ops, choices, functions, select
from ..models.gpt2 import GPT

CHECKED_MODEL = GPTConfig(n_layer=2, n_head=2, n_embd=12, block_size=8, vocab_size=23, dropout=0.1)
SIZES = Dims(B=2, T=7, C=12, NH=3, V=19)


def gradcheck_table(ops: Sequence[str] | None = None, backend: str | None = None, model: bool = False,
                    method: str | None = None, dtype: str = "float64") -> list[dict]:
    """Check the ops (default: all) on the backends (default: all that are built), or a whole model; returns dicts.

    Raises ValueError for an op that has no gradient, and for a backend that does not take the dtype the method needs.
    """
    check_ops(ops or [])
    for op in ops or []:
        if OPS[op].kind != "pair":
            raise ValueError(f"--op {op}: it has no backward, so there is no gradient to check")
    if model:
        return check_whole_model(backend or ("numpy" if method == "complex" else "auto"), method or "central")
    rows = []
    for spec in OPS.values():
        if spec.kind != "pair" or (ops and spec.name not in ops):
            continue
        for choice in [backend] if backend else choices(spec.name, "float64"):
            methods = [method] if method else ["central", "complex"] if choice == "numpy" else ["central"]
            for chosen in methods:
                rows += check_op(spec, choice, chosen)
    return rows


def check_op(spec: Spec, choice: str, method: str) -> list[dict]:
    """One op on one backend by one method, on its sample inputs."""
    namespace = select(dict.fromkeys(OPS, "numpy") | {spec.name: choice})       # so a composite's parts take complex128
    source = namespace.backends[spec.name]
    check_dtype_taken(spec.name, source, method)
    forward, backward = (getattr(namespace, name) for name in functions(spec))
    args = spec.sample(np.random.default_rng(0), "float64", SIZES)
    rows = gradcheck(forward, backward, args, method=method, raise_exception=False, wrt=spec.differentiable)
    return [{"op": spec.name, "backend": source, "method": method, **as_dict(row)} for row in rows]


def curves_of_op(op: str, backend: str) -> dict[str, list[dict[str, float]]]:
    """The error against the step, for each input of an op that has a gradient."""
    spec = OPS[op]
    namespace = select(dict.fromkeys(OPS, "numpy") | {op: backend})
    forward, backward = (getattr(namespace, name) for name in functions(spec))
    args = spec.sample(np.random.default_rng(0), "float64", SIZES)
    return {name: error_curve(forward, backward, args, list(spec.differentiable), name)
            for name in spec.differentiable}


def check_dtype_taken(op: str, source: str, method: str) -> None:
    """Raise ValueError where an implementation lacks the dtype in which the method measures."""
    if method == "complex" and source != "numpy":
        raise ValueError(f"--method complex needs complex128, which only numpy takes: got --backend {source}")
    if source not in choices(op, "float64"):
        raise ValueError(f"--backend {source}: {op} takes no float64 there, which finite differences need "
                         "(tests/ops compares it with the reference instead)")


def check_whole_model(backend: str, method: str) -> list[dict]:
    """Every parameter tensor of a small GPT, with dropout on, by elements and along random directions."""
    ops = select(backend)
    for op in ("embedding", "linear", "layernorm", "attention", "mlp", "linear_cross_entropy"):
        check_dtype_taken(op, ops.backends[op], method)
    rng = np.random.default_rng(0)
    model = GPT(CHECKED_MODEL, dtype=np.float64, ops=ops)
    model.params.flat += 0.1 * rng.standard_normal(model.params.flat.size)
    tokens, targets = rng.integers(0, CHECKED_MODEL.vocab_size, (2, 2, 8))       # (B, T) each
    targets[0, 3] = -1
    key, count = (0, 1, 0), (targets != -1).sum()
    _, grads = model.loss_and_grads(tokens, targets, key=key)

    def loss(params: dict) -> np.ndarray:
        return GPT(CHECKED_MODEL, ops=model.ops, params=params).losses(tokens, targets, key=key)[0].sum() / count

    rows = check_model(loss, grads, model.params, method=method)
    return [{"op": "model", "backend": backend, "method": method, **as_dict(row)} for row in rows]


def gradcheck_page(rows: list[dict]) -> str:
    """The rows as a table: each tensor's worst element."""
    lines = [f"{'op':<21}{'backend':<15}{'method':<9}{'worst element':<38}{'analytic':>14}{'numeric':>15}{'error':>9}"]
    for row in rows:
        place = row["name"] + (str(list(row["index"])) if row["index"] else "")
        lines.append(f"{row['op']:<21}{row['backend']:<15}{row['method']:<9}{place:<38}{row['analytic']:>+14.6e}"
                     f"{row['numeric']:>+15.6e}{row['error']:>9.1e}  {'ok' if row['passed'] else 'FAIL'}")
    failed = [row for row in rows if not row["passed"]]
    checked = sum(row["checked"] for row in rows)
    lines.append(f"{len(rows) - len(failed)} of {len(rows)} gradients right ({checked:,} numbers compared)")
    lines += [f"WRONG: {row['op']} on {row['backend']}: gradient of {row['name']} at {row['index']}: {row['note']}"
              for row in failed]
    return "\n".join(lines)
