"""Faults on one code path alone are found, and not mistaken for leaks."""
import numpy as np
import pytest
from faults import failed, found, planted, rough_model, with_kernels

from minillm import GPTConfig
from minillm.kernels import select as registry
from minillm.models import gpt2
from minillm.models.kv_cache import KVCache
from minillm.workbench.properties import causality, code_paths


def test_a_row_that_depends_on_its_batch():
    model = planted(rough_model(), "mlp_forward", lambda x, *args: args[-1] + x.mean(axis=0))
    failed(code_paths.batch_invariance, model, "row 0")
    assert found(causality.causal, model).passed


@pytest.mark.parametrize("name", ["truncate", "attend"])
def test_a_stale_cache(monkeypatch, name):
    right = getattr(KVCache, name)

    def truncate(self, length):
        self.keys[1] += 1e-2
        right(self, length)

    def attend(self, ops, layer, rows, qkv):
        kept = self.keys[1].copy()
        out = right(self, ops, layer, rows, qkv)
        self.keys[1] = kept
        return out
    monkeypatch.setattr(KVCache, name, {"truncate": truncate, "attend": attend}[name])
    failed(code_paths.cached_decoding, rough_model(), {"truncate": "after rolling back", "attend": "in pieces"}[name])


def test_rows_of_the_cache_that_are_mixed_up(monkeypatch):
    right = KVCache.check_rows
    monkeypatch.setattr(KVCache, "check_rows", lambda self, rows, count: np.sort(right(self, rows, count)))
    failed(code_paths.cached_decoding, rough_model(), "rows in another order")


def test_padding_that_counts():
    model = planted(rough_model(), "linear_cross_entropy_forward", lambda *args: np.maximum(args[-1], 1e-6))
    failed(code_paths.padding_invariance, model, "the filling of row 0")
    model = planted(rough_model(), "attention_forward", lambda qkv, n_head, out: out / qkv.shape[1])
    failed(code_paths.padding_invariance, model, "losses of row 0")


def test_packed_documents_that_see_each_other(monkeypatch):
    right = gpt2.apart
    monkeypatch.setattr(gpt2, "apart", lambda ops, lengths: right(ops, lengths)._replace(
        attention_forward=ops.attention_forward))
    failed(code_paths.packing_invariance, rough_model(config=GPTConfig(2, 2, 16, 40, 50)), "losses of document 1")


@with_kernels
def test_a_kernel_that_depends_on_the_threads():
    model = planted(rough_model("cpu"), "mlp_forward", lambda x, *args: args[-1] + registry._cpp.max_threads() * 1e-5)
    before = registry._cpp.max_threads()
    failed(code_paths.thread_invariance, model, "on 2 threads")
    assert registry._cpp.max_threads() == before


def test_ops_that_are_not_the_reference():
    model = planted(rough_model(), "mlp_forward", lambda x, *args: args[-1] * np.float32(1.01))
    assert found(code_paths.reference_ops, model).passed is None                # it says it is NumPy's
    model.ops = model.ops._replace(backends={**model.ops.backends, "mlp": "file:my.c"})
    failed(code_paths.reference_ops, model, "logits")


def test_transformers_agrees(tmp_path):
    pytest.importorskip("transformers")
    model = rough_model()
    model.save_pretrained(tmp_path)
    assert found(code_paths.transformers, model, tmp_path).passed
    model = planted(model, "mlp_forward", lambda x, *args: args[-1] * np.float32(1.01))
    failed(code_paths.transformers, model, "logits", tmp_path)
