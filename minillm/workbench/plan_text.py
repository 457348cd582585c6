"""A plan as text for the terminal."""
from collections.abc import Iterable
from typing import Any

UNITS = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float) -> str:
    """124439808 -> '124.4M'"""
    for size, letter in UNITS:
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def size(count: float) -> str:
    """Bytes."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def describe(p: dict[str, Any]) -> str:
    """The whole plan."""
    parts = (head(p), flops(p), memory(p), choices(p), serving(p), fits(p), tokens(p), devices(p), scaling(p))
    return "\n".join(line for part in parts for line in part)


def head(p: dict[str, Any]) -> Iterable[str]:
    names = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
    shape = ", ".join(f"{name}={p['model'][name]}" for name in names)
    yield f"model       {number(p['parameters'])} parameters ({p['parameters']:,}): {shape}"


def flops(p: dict[str, Any]) -> Iterable[str]:
    f = p["flops"]
    share = f["training_step"] / f["six_n_p"]
    yield (f"FLOPs       {number(f['training_step'])} a step of {f['tokens_per_step']:,} tokens"
           + f" in {p['processes']} processes, of each" * (p["processes"] > 1)
           + f": {share:.3f} of 6 N P = {number(f['six_n_p'])} (N parameters, P tokens)")
    phases = {**f["training"], **f["prefill"], **f["decode"]}
    ops = list(dict.fromkeys(op for phase in phases.values() for op in phase))
    yield "  " + f"{'':22}" + "".join(f"{name:>14}" for name in phases)
    for op in ops:
        cells = (number(phase[op]) if op in phase else "" for phase in phases.values())
        yield f"  {op:22}" + "".join(f"{cell:>14}" for cell in cells)
    yield f"  {'all':22}" + "".join(f"{number(sum(phase.values())):>14}" for phase in phases.values())
    yield (f"  prefill: one sequence of {p['model']['block_size']:,} tokens; decode: the token after one less; "
           "others: one step")


def memory(p: dict[str, Any]) -> Iterable[str]:
    m, t = p["memory"]["training"], p["train"]
    yield (f"memory      {size(m['peak'])} at the peak of a step: batch_size={t['batch_size']}, "
           f"accumulate={t['accumulate']}, backend={t['backend']}, recompute={str(t['recompute']).lower()}, "
           f"{p['processes']} process" + "es" * (p["processes"] > 1))
    for name, count in m["sizes"].items():
        yield f"  {name:14}{size(count):>12}   {size(m['at_peak'][name])} of it then"
    yield "  a block keeps " + ", ".join(f"{name} {size(count)}" for name, count in m["block"].items() if count)


def choices(p: dict[str, Any]) -> Iterable[str]:
    rows = p["memory"]["choices"]
    yield f"  {'peak with':34}" + "".join(f"{n + ' process' + 'es' * (n != '1'):>14}" for n in rows[0]["peak"])
    for row in rows:
        label = (row["precision"] + ", recompute" * row["recompute"]
                 + f", accumulate={row['accumulate']}" * (row["accumulate"] > 1))
        yield f"  {label:34}" + "".join(f"{size(count):>14}" for count in row["peak"].values())
    yield "  (each process has the whole model and a batch of its own; they share the moments: ZeRO stage 1)"


def serving(p: dict[str, Any]) -> Iterable[str]:
    yield "serving     one sequence of the whole context"
    for weights, parts in p["memory"]["serving"].items():
        yield (f"  {weights:10}{size(sum(parts.values())):>12}: "
               + ", ".join(f"{name.replace('kv_cache', 'KV cache')} {size(count)}" for name, count in parts.items()))
    yield f"  (a KV cache of int8, --kv-cache int8, takes {size(p['memory']['int8_kv_cache'])})"


def fits(p: dict[str, Any]) -> Iterable[str]:
    if "fits" not in p:
        return
    f = p["fits"]
    yield f"fits        into {size(f['memory'])}:"
    for name, found in f["training"].items():
        yield (f"  training {name + ':':20} micro-batch of {found['micro_batch']:,} at this context; context of "
               f"{found['block_size']:,} at micro-batch 1" if found["micro_batch"] or found["block_size"] else
               f"  training {name + ':':20} does not fit at any micro-batch or context")
    for weights, found in f["serving"].items():
        yield (f"  serving {weights + ':':21} {found['sequences']:,} sequences at this context; one of "
               f"{found['block_size']:,} tokens")


def tokens(p: dict[str, Any]) -> Iterable[str]:
    t = p["tokens"]
    yield f"tokens      {number(t['planned'])}, {t['per_parameter']:.3g} for each parameter, in {t['steps']:,} steps"
    for name, rule in t["rules"].items():
        yield f"  {name}: {rule['per_parameter']} for each parameter, {number(rule['tokens'])} ({rule['source']})"


def devices(p: dict[str, Any]) -> Iterable[str]:
    yield f"time        on {p['processes']} of" + f"{'':7}{'FLOP/s':>10}{'hours':>14}{'$ an hour':>12}{'$ in all':>12}"
    for d in p["devices"]:
        price = (f"{d['price']:>12.2f}{d['dollars']:>12,.2f}" if d["price"] else "")
        yield f"  {d['name']:20}{number(d['flops_per_second']):>10}{d['hours']:>14,.2f}{price}"


def scaling(p: dict[str, Any]) -> Iterable[str]:
    if "scaling" not in p:
        return
    rows = p["scaling"]
    yield (f"scaling     {rows[-1]['micro_batches']} micro-batches a step on machines like this one "
           "(workbench/cluster.py has the formula; nothing is lost to stragglers)")
    yield f"  {'machines':>10}{'seconds a step':>16}{'speedup':>10}{'efficiency':>12}"
    for row in rows:
        yield f"  {row['ranks']:>10}{row['seconds']:>16,.3f}{row['speedup']:>10.2f}{row['efficiency']:>12.0%}"


def describe_check(found: dict[str, Any]) -> str:
    """What `minillm plan --verify` found."""
    f = found["flops"]
    lines = [f"FLOPs       {f['planned']:,} planned, {f['counted']:,} counted: "
             + ("equal, op by op" if f["equal"] else "NOT EQUAL")]
    for name, what in (("arrays", "arrays of the ops"), ("memory", "resident memory")):
        c = found[name]
        coarse = name == "memory" and found["coarse"]
        verdict = "within 5%" if c["within"] else "too small to tell" if coarse else "TOO FAR"
        lines.append(f"{what:18}{size(c['planned']):>12} planned, {size(c['measured']):>12} measured at most: "
                     f"{c['error']:+.1%}, {verdict}")
    return "\n".join(lines)
