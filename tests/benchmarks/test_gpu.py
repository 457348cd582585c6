"""benchmarks.gpu on the emulator, its fixture, and the emulated instructions against the layouts of the PTX manual."""
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_check
from minillm.kernels import select as registry

sim = registry.cuda("cudasim")
if sim is None:
    pytest.skip("minillm._cpp.cudasim is not built", allow_module_level=True)
FIXTURE = Path(__file__).parents[1] / "fixtures" / "gpu_instructions.npz"


INSTRUCTIONS = sim.INSTRUCTIONS + sim.HOPPER_INSTRUCTIONS


def check_recorded(path, name):
    """The emulator gives the answers that a GPU gave."""
    recorded = np.load(path)
    if f"{name}_in" not in recorded:
        pytest.skip(f"{path.name} was recorded on a GPU without {name}")
    for words, want in zip(recorded[f"{name}_in"], recorded[f"{name}_out"]):
        assert gpu_check.agree(name, want, gpu_check.instruction(sim, name, words)), name


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_emulator_agrees_with_a_real_gpu(name):
    """What a GPU answered, recorded by `python -m benchmarks.gpu`."""
    if not FIXTURE.exists():
        pytest.skip("no GPU has been at hand yet to record tests/fixtures/gpu_instructions.npz")
    check_recorded(FIXTURE, name)


def test_the_check_of_a_recording_can_fail(tmp_path):
    """The recorder and the check themselves, with the emulator in the GPU's place; then with one wrong bit."""
    table, fixture = gpu_check.conformance(sim, sim, rounds=2)
    assert set(table.values()) == {"2/2", f"{gpu_check.HOPPER_ROUNDS}/{gpu_check.HOPPER_ROUNDS}"}
    np.savez_compressed(tmp_path / "good.npz", **fixture)
    assert (tmp_path / "good.npz").stat().st_size < 400_000             # small enough to be committed
    for name in INSTRUCTIONS:
        check_recorded(tmp_path / "good.npz", name)
        fixture[f"{name}_out"][0, 3, 0] ^= 1 << 25
    np.savez_compressed(tmp_path / "bad.npz", **fixture)
    for name in INSTRUCTIONS:
        with pytest.raises(AssertionError, match=name):
            check_recorded(tmp_path / "bad.npz", name)
    sim.set_capability(80)
    assert set(gpu_check.conformance(sim, sim, rounds=1)[0]) == set(sim.INSTRUCTIONS)
    sim.set_capability(90)


# ---- Hopper's units: layouts of the PTX manual ----

def of_lane(D):
    """(64, N) -> what each of 128 threads holds of it, (128, N / 2): rows g and g + 8 of its warp,
    columns 8 c + 2 t."""
    warp, g, t = np.meshgrid(np.arange(4), np.arange(8), np.arange(4), indexing="ij")
    c, half, pair = np.meshgrid(np.arange(D.shape[1] // 8), np.arange(2), np.arange(2), indexing="ij")
    rows = (16 * warp + g).reshape(-1, 1) + 8 * half.reshape(1, -1)
    return D[rows, 8 * c.reshape(1, -1) + 2 * t.reshape(-1, 1) + pair.reshape(1, -1)]


@pytest.mark.parametrize("name", sim.HOPPER_INSTRUCTIONS[1:])
def test_wgmma_is_a_product(name):
    words = gpu_check.words(name, np.random.default_rng(1))
    rows = numbers(words, name[-4:]).reshape(192, 64).astype("float64")
    A, B = rows[:64], rows[64:]                                         # B: (128, 64), or two panels of (64, 64)
    D = A @ (B.T if "_ss_" in name else np.concatenate([B[:64], B[64:]], axis=1))
    D = D[:, :64] if "_64_" in name else D
    got = gpu_check.instruction(sim, name, words).view("float32")[:, :D.shape[1] // 2]
    assert np.abs(got - (of_lane(D) + np.arange(128)[:, None])).max() < 1e-4


def test_tma_swizzles_and_fills_with_zeros():
    """The box begins 3 rows before the tensor and 8 numbers into it; chunk c of row r lies at place c ^ (r % 8)."""
    words = gpu_check.words("tma_load", np.random.default_rng(1))
    want = np.zeros((192, 64), "uint16")
    want[3:, :56] = words.view("uint16")[:-3, 8:]
    chunks = want.reshape(192, 8, 8)
    row, place = np.ogrid[:192, :8]
    got = gpu_check.instruction(sim, "tma_load", words)[:, :48]
    assert np.array_equal(np.ascontiguousarray(got).view("uint16").reshape(192, 8, 8), chunks[row, place ^ row % 8])


def numbers(words, kind):
    """Pairs of 16-bit numbers -> float32, (..., 2 * words)."""
    bits = np.ascontiguousarray(words).view("uint16")
    return bits.view("float16").astype("float32") if kind == "fp16" else (bits.astype("uint32") << 16).view("float32")


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_mma_is_a_product(kind):
    """Fragments as the PTX manual lists them for m16n8k16: g = lane / 4, t = lane % 4."""
    words = gpu_check.words(f"mma_{kind}", np.random.default_rng(0))
    A, B, C = np.zeros((16, 16)), np.zeros((16, 8)), np.zeros((16, 8))
    for lane in range(32):
        g, t = divmod(lane, 4)
        a, b = numbers(words[lane, 4:8], kind), numbers(words[lane, 8:10], kind)
        for i in range(8):                          # a0 a1: row g; a2 a3: g + 8; a4 ..: columns 8 further
            A[g + 8 * (i // 2 % 2), 2 * t + i % 2 + 8 * (i // 4)] = a[i]
        for i in range(4):
            B[2 * t + i % 2 + 8 * (i // 2), g] = b[i]
        C[[g, g, g + 8, g + 8], [2 * t, 2 * t + 1] * 2] = words[lane, :4].view("float32")
    got, want = sim.instruction(f"mma_{kind}", words).view("float32"), A @ B + C
    for lane in range(32):
        g, t = divmod(lane, 4)
        assert np.allclose(got[lane], want[[g, g, g + 8, g + 8], [2 * t, 2 * t + 1] * 2], atol=1e-5)


def test_ldmatrix_gives_rows_and_columns():
    words = gpu_check.words("ldmatrix", np.random.default_rng(0))
    # four of 8 rows of 8 numbers
    matrices = np.ascontiguousarray(words[:, :4]).view("uint16").reshape(4, 8, 8)
    for name, order in (("ldmatrix", (0, 1, 2)), ("ldmatrix_t", (0, 2, 1))):
        got = sim.instruction(name, words).view("uint16").reshape(8, 4, 4, 2)               # g, t, matrix, pair
        assert np.array_equal(got.transpose(2, 0, 1, 3).reshape(4, 8, 8), matrices.transpose(order)), name


def test_pack_rounds_as_numpy_does():
    values = np.random.default_rng(0).standard_normal(640).astype("float32") * 10.0 ** np.arange(-8, 8).repeat(40)
    words = np.zeros((32, 10), "float32")
    for pair in values.astype("float32").reshape(-1, 32, 2):
        words[:, :2] = pair
        got = sim.instruction("pack", words.view("uint32"))
        with np.errstate(over="ignore"):
            assert np.array_equal(got[:, 1].copy().view("uint16"), pair.astype("float16").view("uint16").reshape(-1))
        bits = pair.view("uint32")
        rounded = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("uint16")
        assert np.array_equal(got[:, 0].copy().view("uint16"), rounded.reshape(-1))


def test_copies_and_shuffles():
    words = gpu_check.words("shuffle", np.random.default_rng(0))
    copied = np.where(words[:, 8:9] % 2 == 0, words[:, :4], 0)
    assert np.array_equal(sim.instruction("cp_async_16", words), copied)
    assert np.array_equal(sim.instruction("cp_async_4", words), copied)
    lanes = np.arange(32)
    want = np.stack([words[lanes ^ (1 << i), i] for i in range(4)], axis=1)
    assert np.array_equal(sim.instruction("shuffle", words), want)


def test_agree_can_fail():
    for name in INSTRUCTIONS:
        want = gpu_check.instruction(sim, name, gpu_check.words(name, np.random.default_rng(0)))
        wrong = want.copy()
        wrong[3, 0] ^= 1 << 20
        assert gpu_check.agree(name, want, want) and not gpu_check.agree(name, wrong, want), name


def test_unknown_instruction():
    with pytest.raises(ValueError, match="name must be an instruction: got nop"):
        sim.instruction("nop", np.zeros((32, 10), "uint32"))


def test_reference_is_the_reference():
    from minillm import ops
    rng = np.random.default_rng(0)
    qkv, dout = rng.standard_normal((2, 7, 18)), rng.standard_normal((2, 7, 6))
    want, cache = ops.attention_forward(qkv, 2)
    got = gpu_check.reference(qkv, dout, 2, True)
    assert np.allclose(got[0], want) and np.allclose(got[1], ops.attention_backward(dout, cache))


