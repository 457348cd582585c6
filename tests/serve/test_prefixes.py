"""The prefix cache: answers with the same bits whether the beginning of a prompt was known or not."""
import numpy as np
import pytest
from serving import model, tokenizer  # noqa: F401  (fixtures)

from minillm import select
from minillm.generation.sampling import Sampling
from minillm.models.quantized import quantize
from minillm.serve.engine import Engine, Job
from minillm.serve.prefixes import Prefixes

PART = 16
RNG = np.random.default_rng(0)
SYSTEM, OTHER = RNG.integers(0, 290, (2, 70)).tolist()


def prompts():
    """Conversations that begin alike, as long as 0 to 4 parts, and at every place around the ends of parts."""
    for length in (1, 15, 16, 17, 31, 32, 33, 64, 65, 70):
        yield SYSTEM[:length]
        yield SYSTEM[:length] + OTHER[:9]
    yield OTHER


def answers(engine, jobs, together):
    """For each job every step with all its bits: the token, its log-probability and the 20 best."""
    out = [[] for _ in jobs]
    for job, pieces in zip(jobs, out):
        job.put = pieces.append
        engine.submit([job])
        while not together and (engine.active or engine.waiting):
            engine.step()
    while engine.active or engine.waiting:
        engine.step()
    return [[step for piece in pieces for _, step in piece.steps] for pieces in out]


def on(model, backend):
    if backend in ("int8", "bfloat16"):
        return quantize(model, backend)
    other = model.on(select("auto" if backend == "int8 cache" else backend))
    other.kv_cache = "int8" if backend == "int8 cache" else "float"
    return other


@pytest.mark.parametrize("backend, together", [("numpy", False), ("auto", False), ("auto", True), ("int8", False),
                                               ("int8", True), ("int8 cache", True)])
def test_hits_have_the_bits_of_misses(model, tokenizer, backend, together):
    """NumPy alone: its BLAS has other sums in a crowd."""
    def jobs():
        return [Job(ids, 6, None, Sampling(seed=i), top=20, score=i % 7 == 6) for i, ids in enumerate(prompts())]

    chosen = on(model, backend)
    alone = [answers(Engine(chosen, tokenizer, 1, 9, PART), [job], False)[0] for job in jobs()]
    engine, again = Engine(chosen, tokenizer, 3, 99, PART), jobs()
    assert answers(engine, again, together) == alone
    assert sum(job.n_cached for job in again) > 300 and all(job.n_cached % PART == 0 for job in again)
    assert not any(job.n_cached for job in again if job.score)


def test_a_prefix_is_whole_parts_and_never_the_whole_prompt(model):
    prefixes = Prefixes(model.new_cache(3), PART)
    prefixes.keep(1, SYSTEM[:40])                                           # 32 of them in whole parts
    for ids, count in ((SYSTEM, 32), (SYSTEM[:32], 16), (SYSTEM[:33], 32), (SYSTEM[:16] + OTHER, 16), (OTHER, 0),
                       (SYSTEM[:15] + OTHER, 0), (SYSTEM[:1], 0), ([], 0)):
        assert prefixes.common(np.array(ids), 1) == count
    assert prefixes.best_slot(SYSTEM, [0, 2]) == 0 and prefixes.best_slot(SYSTEM, [2, 1]) == 1
    prefixes.cache.keys[:, 1], prefixes.cache.values[:, 1] = 1, 2
    assert prefixes.reuse(SYSTEM, 2) == 32 == prefixes.cache.lengths[2]
    assert (prefixes.cache.keys[:, 2, :, :32] == 1).all() and (prefixes.cache.values[:, 2, :, :32] == 2).all()
    assert not prefixes.cache.keys[:, 2, :, 32:].any()
    assert prefixes.reuse(OTHER, 1) == 0 == prefixes.common(np.array(SYSTEM), 1)    # overwritten from now on


def test_a_prompt_that_failed_half_way_leaves_nothing_behind(model, tokenizer, monkeypatch):
    """What a slot kept before is forgotten before it is overwritten."""
    engine, right = Engine(model, tokenizer, 1, 9, PART), model.decode
    first = answers(engine, [Job(SYSTEM, 3, None, top=5)], False)

    def broken(tokens, cache, **more):
        right(tokens, cache, **more)
        raise MemoryError

    for score in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(engine.model, "decode", broken)
            engine.submit([Job(OTHER, 3, lambda piece: None, score=score)])
            with pytest.raises(MemoryError):
                engine.step()
        engine.drop_all(MemoryError())
        again = Job(SYSTEM, 3, None, top=5)
        assert answers(engine, [again], False) == first and again.n_cached == 0


def test_the_usage_tells_what_was_cached(model, tokenizer):
    from serving import running
    with running(model, tokenizer, {"chunk": PART}) as server:
        body = {"prompt": SYSTEM, "max_tokens": 2, "n": 2, "seed": 1}
        for cached in (None, {"cached_tokens": 64}):
            usage = server.client.post("/v1/completions", json=body).json()["usage"]
            assert usage["prompt_tokens"] == 70 and (cached is None or usage["prompt_tokens_details"] == cached)
        assert "minillm_cached_prompt_tokens_total" in server.client.get("/metrics").text
