"""Muon's update: singular values within the band, the formula by singular values alone, and torch's Muon."""
import math

import numpy as np
import pytest
from cases import BACKENDS, sample
from test_gemm import threads  # noqa: F401  (a fixture)
from tolerances import assert_close, assert_same_bits

from minillm.kernels.load import load
from minillm.kernels.select import Dims, choices, select
from minillm.ops.bfloat16 import bfloat16_bits
from minillm.ops.optimizer.muon import EPS, orthogonalised

ALL = BACKENDS + [backend for backend in ("cpu/bf16",) if backend in choices("projection")]
SHAPES = [(24, 24), (17, 96), (96, 17), (1, 30), (30, 1), (64, 130)]
BAND = {"float32": (0.68, 1.21), "float64": (0.68, 1.21), "bfloat16": (0.64, 1.26)}


def with_singular_values(shape, low=3e-3, dtype="float64", seed=0):
    """A matrix whose singular values lie between `low` and 1, as shares of its Frobenius norm; U, s and V.T."""
    rng, rank = np.random.default_rng(seed), min(shape)
    U, V = (np.linalg.qr(rng.standard_normal((side, rank)))[0] for side in shape)
    s = np.geomspace(2 * low, 1, rank) if rank > 1 else np.ones(1)
    s = np.maximum(s / np.linalg.norm(s), low)
    return ((U * s) @ V.T).astype(dtype), U, s / (np.linalg.norm(s) + EPS), V.T


def five_steps(s):
    a, b, c = 3.4445, -4.7750, 2.0315                          # Jordan et al. 2024
    for _ in range(5):
        s = a * s + b * s ** 3 + c * s ** 5
    return s


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", ALL)
def test_singular_values_end_within_the_band(backend, shape):
    low, high = BAND["bfloat16" if backend.endswith("bf16") else "float32"]
    u = with_singular_values(shape, dtype="float32")[0]
    found = np.linalg.svd(orthogonalised(u * 50, select(backend)), compute_uv=False)
    assert low <= found.min() and found.max() <= high


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_update_by_singular_values(backend, shape):
    """No Newton-Schulz: the same directions, and the polynomial of each singular value."""
    u, U, s, Vt = with_singular_values(shape)
    w, m = np.random.default_rng(1).standard_normal((2, *shape))
    want = w * (1 - 0.02 * 0.1) - 0.02 * 0.2 * math.sqrt(max(shape)) * (U * five_steps(s)) @ Vt
    grad = (u - 0.9 * 0.9 * m) / (1 - 0.9 ** 2) * 4             # so that Nesterov's direction is u
    momentum = 0.9 * m + 0.1 * grad / 4
    select(backend).muon_update(w, grad, m, 0.02, 0.9, 0.1, 0.25)
    assert_close("w", w, want, "regrouped float64")
    assert_close("m", m, momentum, "regrouped float64")


def test_the_step_does_not_depend_on_the_gradients_size():
    first, second = (sample("muon", "float64", Dims(C=12)) for _ in range(2))
    for args, size in ((first, 1e6), (second, 1e12)):
        args["m"] *= 0
        select("numpy").muon_update(**args | {"grad": size * args["grad"]})
    assert_close("w", first["w"], second["w"], "regrouped float64")


@pytest.mark.parametrize("backend", ALL)
def test_no_gradient_is_decay_alone(backend):
    w, zeros = np.full((6, 9), 2, "float32"), np.zeros((6, 9), "float32")
    select(backend).muon_update(w, zeros, zeros.copy(), 0.5, 0.95, 0.1)
    assert_same_bits(w, np.full((6, 9), 2, "float32") * (1 - 0.5 * 0.1))


def test_nan_reaches_the_weights():
    args = sample("muon", "float32")
    args["grad"][1, 2] = np.nan
    select("numpy").muon_update(**args)
    assert np.isnan(args["w"]).all()


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_a_matrix_without_numbers_stays_as_it_is(backend, shape):
    select(backend).muon_update(*(np.zeros(shape, "float32") for _ in range(3)), 0.02)


@pytest.mark.parametrize("backend", ALL)
def test_bits_are_of_the_updated_w(backend):
    args, bits = sample("muon", "float32"), np.zeros((8, 32), "uint16")
    select(backend).muon_update(**args, bits=bits)
    assert_same_bits(bits, bfloat16_bits(args["w"]))
    with pytest.raises(ValueError, match="bits must have shape"):
        select(backend).muon_update(**args, bits=bits[:, :5])


@pytest.mark.skipif(len(BACKENDS) < 2, reason="no kernels")
@pytest.mark.parametrize("backend", ALL[1:])
def test_the_same_bits_with_any_number_of_threads(threads, backend):  # noqa: F811
    """Of shapes large enough for several threads, and of columns that stand within a wider matrix."""
    for shape in ((96, 384), (384, 96), (160, 160)):
        found = []
        for count in (1, 2, 3):
            load().set_threads(count)
            rng = np.random.default_rng(0)
            wide = [rng.standard_normal((shape[0], 2 * shape[1])).astype("float32") for _ in range(3)]
            select(backend).muon_update(*(array[:, shape[1]:] for array in wide), 0.02)
            found.append(wide)
        assert_same_bits(found[0], found[1])
        assert_same_bits(found[0], found[2])


@pytest.mark.parametrize("backend", ALL)
def test_a_list_of_matrices_is_updated_one_by_one(backend):
    rng, update = np.random.default_rng(0), select(backend).muon_update
    alone = [[rng.standard_normal((r, c)).astype("float32") for r, c in SHAPES] for _ in range(3)]
    together = [[array.copy() for array in arrays] for arrays in alone]
    bits = [np.zeros(shape, "uint16") for shape in SHAPES]
    update(*together, 0.02, weight_decay=0.1, scale=0.5, bits=bits)
    for w, grad, m in zip(*alone):
        update(w, grad, m, 0.02, weight_decay=0.1, scale=0.5)
    for found, want in zip(together[0] + together[2], alone[0] + alone[2]):
        assert_same_bits(found, want)
    for found, w in zip(bits, together[0]):
        assert_same_bits(found, bfloat16_bits(w))
    with pytest.raises(ValueError, match="grad must be .*as many arrays as w: 6"):
        update(together[0], together[1][:5], together[2], 0.02)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)], ids=str)
def test_torchs_muon_takes_the_same_step(shape):
    """It multiplies in bfloat16: as far apart as that rounds."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    w, grad = (with_singular_values(shape, 0.05, "float32", seed)[0] for seed in (0, 1))
    theirs = torch.nn.Parameter(torch.tensor(w))
    optimizer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, momentum=0.95, nesterov=True,
                                 adjust_lr_fn="match_rms_adamw")
    ours, m = w.copy(), np.zeros_like(w)
    for _ in range(3):
        theirs.grad = torch.tensor(grad)
        optimizer.step()
        select("numpy").muon_update(ours, grad, m, 0.1, 0.95, 0.1)
    step = np.linalg.norm(ours - w)
    assert np.linalg.norm(ours - theirs.detach().numpy()) < 0.02 * step
