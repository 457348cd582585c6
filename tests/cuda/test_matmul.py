"""The matmul ladder of the GPU on the emulator: sizes beside each tile's borders, layouts, schedules, bank conflicts.

NN, NT and TN are the three matmuls of `linear`: out = x @ weight, dx = dout @ weight.T, dweight = x.T @ dout. The
contract of the ops made of them is tested where all backends are (tests/ops).
"""
import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from minillm import ops as reference
from minillm.kernels import select as registry
from minillm.ops.bfloat16 import bfloat16_bits

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)

EXACT, TENSOR_CORES = ("1_naive", "2_tiled"), ("3_mma", "4_wgmma")
STEPS = EXACT + TENSOR_CORES
# in order; shuffled; + a warp ahead; + copies at once; + by coin; all; any thread, copies at once
SCHEDULES = [8, 9, 10, 12, 31, 42]
NAMES = ("out", "dx", "dweight", "dbias")


@pytest.fixture(autouse=True)
def in_order():
    yield
    sim.set_schedule(0)
    sim.set_capability(90)


def bfloat16(x):
    """float32 rounded to bfloat16; still float32."""
    return (bfloat16_bits(x).astype("uint32") << 16).view("float32")


def inputs(N, I, J, dtype="float32", seed=0):
    """x, weight, bias, dout, all of them numbers that bfloat16 has, so that products of the tensor cores are exact."""
    rng = np.random.default_rng(seed)
    return [bfloat16(rng.standard_normal(shape).astype("float32")).astype(dtype)
            for shape in ((N, I), (I, J), J, (N, J))]


def results(step, x, weight, bias, dout, into=None, op="linear"):
    out, cache = getattr(sim, f"{op}_forward_{step}".rstrip("_"))(x, weight, bias)
    return dict(zip(NAMES, (out, *getattr(sim, f"{op}_backward_{step}".rstrip("_"))(dout, cache, into))))


def expected(*arrays):
    x, weight, bias, dout = (a.astype("float64") for a in arrays)
    out, cache = reference.linear_forward(x, weight, bias)
    return dict(zip(NAMES, (out, *reference.linear_backward(dout, cache))))


def check(step, *sizes, dtype="float32"):
    arrays = inputs(*sizes, dtype)
    want = expected(*arrays)
    for name, got in results(step, *arrays).items():
        assert_close(f"{step} {sizes} {name}", got, want[name], f"odd sizes {dtype}")


@pytest.mark.parametrize("N, I, J", [(31, 33, 32), (33, 31, 65), (32, 64, 1), (1, 7, 9), (8, 1, 33), (65, 8, 30)])
@pytest.mark.parametrize("step", EXACT)
def test_sizes_beside_the_borders_of_the_small_tile(step, N, I, J):
    """Each size is rows, columns and depth of one of the three: 32 of a tile, 8 of a part, fours of neighbours."""
    check(step, N, I, J)
    check(step, N, I, J, dtype="float64")


@pytest.mark.parametrize("N, I, J", [(127, 129, 33), (129, 31, 128), (1, 1, 1), (5, 97, 8), (128, 130, 1)])
def test_sizes_beside_the_borders_of_tensor_core_tiles(N, I, J):
    """128 of a tile, 32 of a part, three parts in the ring, chunks of 8 numbers."""
    check("3_mma", N, I, J)


@pytest.mark.parametrize("N, I, J", [(257, 136, 128), (255, 64, 264), (1, 8, 8), (40, 72, 704)])
def test_sizes_beside_the_borders_of_hoppers_tiles(N, I, J):
    """256 rows, 128 columns, 64 of a part, four parts in the ring; more tiles than multiprocessors, of which the
    emulator has four: blocks with two tiles, the second's parts on their way while the first is written."""
    check("4_wgmma", N, I, J)


@pytest.mark.parametrize("I, J, wgmma", [(136, 72, True), (130, 72, False), (136, 70, False)])
def test_what_tma_cannot_read_step_3_does(I, J, wgmma):
    """Rows that are no multiple of 16 bytes; and all of it on another GPU. The two steps add in another order."""
    x, weight, bias, _ = inputs(20, I, J)
    step_3, step_4 = (getattr(sim, f"linear_forward_{step}")(x, weight, bias)[0] for step in TENSOR_CORES)
    assert np.array_equal(step_3, step_4) != wgmma
    sim.set_capability(80)
    assert_same_bits(sim.linear_forward_4_wgmma(x, weight, bias)[0], step_3)


def test_mixed_precision_takes_step_4_for_many_tiles():
    """From 33 on, of 256 x 128."""
    for tiles, step in ((32, "3_mma"), (33, "4_wgmma")):
        x, weight, bias, _ = inputs(1, 24, 128 * tiles)
        assert_same_bits(sim.linear_forward_bf16(x, weight, bias)[0],
                         getattr(sim, f"linear_forward_{step}")(x, weight, bias)[0])


@pytest.mark.parametrize("N, J, I", [(9 * 128 - 1, 8 * 128 + 1, 2), (9 * 128 + 1, 8 * 128 - 1, 1)])
def test_large_tiles_have_the_bits_of_small_ones(N, J, I):
    """From 66 tiles on they have 128 rows and columns. Sums have one order, so the first rows alone, by small tiles,
    and all rows by step 1 have the same bits."""
    x, weight, bias, _ = inputs(N, I, J)
    out = sim.linear_forward_2_tiled(x, weight, bias)[0]
    assert_same_bits(out, sim.linear_forward_1_naive(x, weight, bias)[0])
    assert_same_bits(out[:40], sim.linear_forward_2_tiled(x[:40].copy(), weight, bias)[0])
    logits = sim.projection_forward(x, weight.T.copy(), bias)[0]                # NT
    assert_same_bits(logits, out)


@pytest.mark.parametrize("step", STEPS)
def test_a_row_has_the_same_bits_in_every_batch(step):
    x, weight, bias, dout = inputs(45, 72, 40)
    whole = results(step, x, weight, bias, dout)
    for rows in (slice(0, 1), slice(0, 33), slice(7, 45), slice(44, 45)):
        part = results(step, x[rows].copy(), weight, bias, dout[rows].copy())
        for name in ("out", "dx"):
            assert_same_bits(part[name], whole[name][rows], f"{name} of {rows}")


@pytest.mark.parametrize("step", STEPS)
def test_equal_bits_under_every_schedule(step):
    """No result may depend on which thread comes first, or on when a copy lands; and no two rows share banks."""
    arrays = inputs(40, 136, 72)
    sim.take_bank_conflicts()
    wanted = results(step, *arrays)
    for seed in SCHEDULES[:2] if step == "1_naive" else SCHEDULES:
        sim.set_schedule(seed)
        for name, got in results(step, *arrays).items():
            assert_same_bits(got, wanted[name], f"{name} under schedule {seed}")
    assert sim.take_bank_conflicts() == 0


@pytest.mark.parametrize("step", TENSOR_CORES)
def test_long_sums_of_a_weight_are_cut_into_slices(step):
    """Few tiles, many rows: two slices of 1280 and 1220, whose sums are added up in order; once to what is there."""
    x, weight, bias, dout = inputs(2500, 24, 16)

    def gradient(rows, into=None):
        cache = getattr(sim, f"linear_forward_{step}")(x[rows].copy(), weight, bias)[1]
        return getattr(sim, f"linear_backward_{step}")(dout[rows].copy(), cache, into)[1]

    whole = gradient(slice(0, 2500))
    assert_same_bits(whole, gradient(slice(0, 1280)) + gradient(slice(1280, 2500)))
    assert_close("dweight", whole, x.T.astype("float64") @ dout, "odd sizes float32")
    added = gradient(slice(0, 2500), (np.full_like(whole, 100), None))
    assert_same_bits(added, whole + np.float32(100))


@pytest.mark.parametrize("op", ["linear", "projection"])
@pytest.mark.parametrize("step", ["", "bf16"])
def test_gradients_are_added_to_what_is_there(step, op):
    """To each sum of a matmul and of a column, once; what nobody wants is None."""
    x, weight, bias, dout = inputs(67, 12, 9)
    if op == "projection":
        weight = weight.T.copy()
    fresh = results(step, x, weight, bias, dout, op=op)
    into = np.full_like(fresh["dweight"], 100), np.full_like(fresh["dbias"], 100)
    added = results(step, x, weight, bias, dout, into, op)
    for name, array in zip(NAMES[2:], into):
        assert added[name] is array
        assert_close(name, array, fresh[name] + 100.0, "regrouped float32")
    some = results(step, x, weight, bias, dout, (None, into[1]), op)
    assert some["dweight"] is None
    assert_close("dbias", into[1], 2 * fresh["dbias"] + 100.0, "regrouped float32")
    assert_same_bits(some["dx"], fresh["dx"])


@pytest.mark.parametrize("step", STEPS)
def test_nan_touches_only_its_row(step):
    """Neither what fills a tile nor a neighbour of the tile sees it: 0 times NaN is NaN."""
    x, weight, bias, _ = inputs(37, 24, 16)
    x[20, 23] = np.nan
    bad = np.isnan(getattr(sim, f"linear_forward_{step}")(x, weight, bias)[0])
    assert bad[20].all() and bad.sum() == 16


def test_weights_as_bits_equal_rounded_ones():
    """The optimizer's bfloat16 copy goes in as it is; x and dout are rounded, sums are float32."""
    rng = np.random.default_rng(3)
    x, weight, bias, dout = (rng.standard_normal(s).astype("float32") for s in ((9, 24), (24, 15), 15, (9, 15)))
    plain = results("bf16", x, weight, bias, dout)
    bits = results("bf16", x, bfloat16_bits(weight), bias, dout)
    assert_same_bits(bits, plain)
    want = expected(bfloat16(x), bfloat16(weight), bias, bfloat16(dout))
    for name in ("out", "dx", "dweight"):
        assert_close(name, plain[name], want[name], "odd sizes float32")


def test_mlp_keeps_half_of_its_activations_in_16_bits():
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(s).astype("float32") for s in ((5, 8), (8, 32), 32, (32, 8), 8)]
    x, _, _, h = sim.mlp_forward_bf16(*args)[1]
    assert x.dtype == h.dtype == "uint16" and h.shape == (5, 32)
    out, grads = (sim.mlp_forward_bf16(*args)[0], sim.mlp_backward_bf16(args[0], sim.mlp_forward_bf16(*args)[1]))
    bits = [bfloat16_bits(a) if a.ndim == 2 and a is not args[0] else a for a in args]
    assert_same_bits((out, grads), (sim.mlp_forward_bf16(*bits)[0],
                                    sim.mlp_backward_bf16(args[0], sim.mlp_forward_bf16(*bits)[1])))


@pytest.mark.parametrize("variant", ["", "_bf16"])
def test_the_chunks_of_linear_cross_entropy_leave_no_trace(variant):
    """2048 rows a chunk: losses and gradients of 2049 are those of 2048 and of one."""
    rng = np.random.default_rng(0)
    x, wte = (bfloat16(rng.standard_normal(shape).astype("float32")) for shape in ((2049, 2), (3, 2)))
    targets, dout = rng.integers(-1, 3, 2049), np.ones(2049, "float32")
    forward, backward = (getattr(sim, f"linear_cross_entropy_{way}{variant}") for way in ("forward", "backward"))

    def run(rows):
        losses, cache = forward(x[rows].copy(), wte, targets[rows].copy())
        return losses, *backward(dout[rows].copy(), cache)

    losses, dx, dwte = run(slice(0, 2049))
    (first, dfirst, dwte_first), (last, dlast, dwte_last) = run(slice(0, 2048)), run(slice(2048, 2049))
    assert_same_bits(losses, np.concatenate([first, last]))
    assert_same_bits(dx, np.concatenate([dfirst, dlast]))
    assert_same_bits(dwte, dwte_first + dwte_last)
    assert not losses[targets == -1].any() and not dx[targets == -1].any()


@pytest.mark.parametrize("changed, words", [
    (dict(x=np.zeros((2, 3), "float64")), "x must have dtype float32"),
    (dict(weight=np.zeros((3, 4), "float16")), "weight must have dtype float32"),
    (dict(weight=np.zeros((4, 4), "uint16")), "weight must have shape"),
    (dict(bias=np.zeros(5, "float32")), "bias must have shape")])
def test_errors_of_mixed_precision_name_the_argument(changed, words):
    args = dict(x=np.zeros((2, 3), "float32"), weight=np.zeros((3, 4), "uint16"), bias=np.zeros(4, "float32"))
    with pytest.raises(ValueError, match=words):
        sim.linear_forward_bf16(**args | changed)
