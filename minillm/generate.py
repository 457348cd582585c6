"""Sampling text from a GPT: one token at a time, each drawn from the model's distribution, reshaped.

    temperature   divide the logits: below 1 sharper, above 1 flatter, 0 always the likeliest token
    top_k         keep the k likeliest tokens
    top_p         keep the smallest set of likeliest tokens whose probability reaches p (Holtzman et al. 2019)

The t-th draw depends on (seed, t) alone, so a run repeats exactly.
"""
import numpy as np


def generate(model, ids, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=0, use_cache=True, stop=None):
    """Continue `ids` by up to max_new_tokens tokens; returns the list of all ids, prompt included.

    ids: a non-empty list of ints. stop: an id that ends the text (it is included). Beyond block_size tokens the
    oldest half of the context is dropped and the rest is read again. Raises ValueError for settings out of range.
    """
    return list(ids) + list(stream(model, ids, max_new_tokens, temperature, top_k, top_p, seed, use_cache, stop))


def stream(model, ids, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=0, use_cache=True, stop=None):
    """Like `generate`, but yields each new id as soon as it is drawn."""
    ids = [int(i) for i in ids]
    check_settings(ids, max_new_tokens, temperature, top_k, top_p)
    block_size = model.config.block_size
    window = ids[-block_size:]                   # the context the model sees
    cache, fresh = model.new_cache(1), window    # tokens not yet in the cache
    for position in range(max_new_tokens):
        if len(window) > block_size:
            window = window[-(block_size // 2 or 1):]
            cache, fresh = model.new_cache(1), window
        logits = next_logits(model, window, fresh, cache if use_cache else None)
        token = sample(logits, temperature, top_k, top_p, np.random.default_rng((seed, position)))
        yield token
        if token == stop:
            return
        window, fresh = window + [token], [token]


def next_logits(model, window, fresh, cache):
    """Logits (V,) for the token after the window, by the cache or by a full forward."""
    if cache is None:
        return model.forward(np.array([window]))[0][0, -1]
    return model.decode(np.array([fresh]), cache)[0, -1]


def sample(logits, temperature=1.0, top_k=None, top_p=None, rng=None):
    """Draw one token id from logits (V,). Raises ValueError for a NaN among them."""
    if np.isnan(logits).any():
        raise ValueError(f"logits must not be NaN: token {int(np.isnan(logits).argmax())} is")
    if temperature == 0:
        return int(logits.argmax())
    probabilities = distribution(logits, temperature, top_k, top_p)
    edges = probabilities.cumsum()
    chosen = np.searchsorted(edges, rng.random() * edges[-1], side="right")
    return int(min(chosen, np.flatnonzero(probabilities)[-1]))       # rounding may reach the last edge itself


def distribution(logits, temperature=1.0, top_k=None, top_p=None):
    """The probabilities (V,) that `sample` draws from, in float64. Equal logits at an edge are all kept or cut by order."""
    logits = logits.astype(np.float64)
    logits = (logits - logits.max()) / temperature           # at most 0, so a tiny temperature cannot overflow
    if top_k is not None and top_k < len(logits):
        keep = np.argsort(-logits, kind="stable")[:top_k]
        logits = np.where(np.isin(np.arange(len(logits)), keep), logits, -np.inf)
    p = np.exp(logits)
    p /= p.sum()
    if top_p is not None:
        order = np.argsort(-p, kind="stable")
        before = p[order].cumsum() - p[order]                # probability of everything likelier
        p[order[before >= top_p]] = 0                        # the likeliest has 0 before it and always stays
        p /= p.sum()
    return p


def check_settings(ids, max_new_tokens, temperature, top_k, top_p):
    if not ids:
        raise ValueError("ids must hold at least one token: start from the end-of-text token for an empty prompt")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be at least 0: got {max_new_tokens}")
    if not temperature >= 0 or temperature == float("inf"):
        raise ValueError(f"temperature must be a number of at least 0: got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1: got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1]: got {top_p}")
