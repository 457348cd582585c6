"""Kernels of one's own: prototypes and mappings are read, arguments are bound, and a model runs on them."""
import numpy as np
import pytest

from minillm import GPT, GPTConfig, select
from minillm.kernels.own.binding import bind
from minillm.kernels.own.build import functions_of
from minillm.kernels.own.call import arguments, sizes_of
from minillm.kernels.own.prototype import read_mappings, read_prototypes

SOURCE = """
#include <math.h>
#define TWO(x) (2 * (x))
/* void not_this(float* out, int N) {} */
struct model { float* w; };
static inline void scale(float *__restrict__ out, const float x[], std::size_t n, unsigned int T) { if (n) { } }
extern "C" void plain(double* out, double const *x, long N);
void not_that(struct model* m, int N) { return; }
int main(int argc, char** argv) { for (int i = 0; i < 3; i++) scale(0, 0, 1, 2); }
"""
LAYERNORM = """
// minillm: my_norm(result=out, inp=x, gain=weight, shift=bias,
//                  rows=B*T, C, small=1e-5)
void my_norm(float* result, const float* inp, const float* gain, const float* shift, int rows, int C, float small) {
    for (int i = 0; i < rows; i++) {
        float m = 0, v = 0;
        for (int c = 0; c < C; c++) m += inp[i * C + c] / C;
        for (int c = 0; c < C; c++) v += (inp[i * C + c] - m) * (inp[i * C + c] - m) / C;
        for (int c = 0; c < C; c++) result[i * C + c] = (inp[i * C + c] - m) / sqrtf(v + small) * gain[c] + shift[c];
    }
}
"""


def test_prototypes_are_read_and_what_is_no_kernel_is_left_out():
    found = read_prototypes(SOURCE)
    assert list(found) == ["scale", "plain"]
    assert [tuple(p) for p in found["scale"].parameters] == [
        ("out", "float", True), ("x", "float", True), ("n", "size_t", False), ("T", "unsigned int", False)]
    assert found["plain"].parameters[0].type == "double"


def test_a_mapping_may_name_its_op_pass_an_input_through_an_op_and_go_on_in_the_next_line():
    mapping = read_mappings("// minillm: cross_entropy: loss(l=out, p=softmax(logits),\n//   att=[B,NH,T,T], targets, "
                            "N)\n")
    assert mapping["loss"].op == "cross_entropy"
    assert mapping["loss"].items == ("l=out", "p=softmax(logits)", "att=[B,NH,T,T]", "targets", "N")


@pytest.mark.parametrize("source, op, words", [
    ("void gelu_forward(float* out, float* what, int N) {}", "gelu", "argument 'what' is none of op gelu"),
    ("void gelu_forward(float* x, int N) {}", "gelu", "must give out"),
    ("// minillm: gelu_forward(out, other=x, N)\nvoid gelu_forward(float* out, float* x, int N) {}", "gelu",
     "no argument 'other'"),
    ("// minillm: gone(out, x, N)\nvoid gelu_forward(float* out, float* x, int N) {}", "gelu", "no function 'gone'"),
    ("void embedding_forward(float* out, float* tokens, float* wte, float* wpe, int B) {}", "embedding", "integers"),
    ("int main() { return 0; }", "gelu", "no function for op gelu"),
])
def test_what_cannot_be_bound_is_named(tmp_path, source, op, words):
    path = tmp_path / "a.c"
    path.write_text(source)
    with pytest.raises(ValueError, match=words):
        functions_of(path, op)


def test_results_that_are_added_to_and_what_is_stored_transposed():
    prototype = read_prototypes("void matmul_backward(float* dinp, float* dweight, float* dbias, float* dout, float* "
                                "inp,"
                                " float* weight, int B, int T, int C, int OC) {}")["matmul_backward"]
    mapping = read_mappings("// minillm: matmul_backward(dinp+=dx, dweight=dweight.T, dbias+=dbias, dout, inp=x, "
                            "weight=weight.T,"
                            " B, T, C, OC)")["matmul_backward"]
    bound = bind(prototype, "linear", mapping)
    assert bound.direction == "backward"
    assert {slot.ours: (slot.added, slot.transposed) for slot in bound.slots[:3]} == {
        "dx": (True, False), "dweight": (False, True), "dbias": (True, False)}
    values = {"x": np.zeros((2, 3, 4), "float32"), "weight": np.arange(20, dtype="float32").reshape(4, 5),
              "bias": np.zeros(5, "float32"), "dout": np.zeros((2, 3, 5), "float32")}
    before = {"dx": values["x"], "dweight": values["weight"], "dbias": values["bias"]}
    memory = arguments(bound, values, sizes_of("linear", values), before)
    assert memory[5].array.tolist() == values["weight"].T.tolist() and not memory[5].written
    assert [int(place.array) for place in memory[6:]] == [2, 3, 4, 5]


def model_of(choice):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=40)
    tokens, targets = np.random.default_rng(0).integers(0, 40, (2, 2, 12))
    return GPT(config, seed=0, ops=select(choice)).loss_and_grads(tokens, targets)


@pytest.mark.parametrize("op", ["layernorm", "attention", "gelu", "linear"])
def test_a_model_trains_on_a_kernel_of_ones_own(op, request):
    pytest.importorskip("cffi")
    trainer = request.config.rootpath / "tests" / "workbench" / "kernel" / "trainer.c"
    loss, grads = model_of({op: f"file:{trainer}"})
    expected, right = model_of("numpy")
    assert abs(loss - expected) < 1e-5
    assert max(np.abs(grads[name] - right[name]).max() for name in right) < 1e-5


def test_what_a_file_lacks_comes_from_the_reference(tmp_path):
    pytest.importorskip("cffi")
    (tmp_path / "norm.c").write_text("#include <math.h>\n" + LAYERNORM)
    loss, grads = model_of(f"layernorm=file:{tmp_path / 'norm.c'}")
    expected, right = model_of("numpy")
    assert abs(loss - expected) < 1e-5 and max(np.abs(grads[name] - right[name]).max() for name in right) < 1e-5


def test_a_python_pair_in_a_model(tmp_path):
    (tmp_path / "twice.py").write_text("""
from minillm.ops import layernorm_backward as backward, layernorm_forward
calls = []
def forward(*args):
    calls.append(1)
    return layernorm_forward(*args)
""")
    ops = select({"layernorm": f"file:{tmp_path / 'twice.py'}:forward,backward"})
    assert ops.backends["layernorm"].endswith("twice.py:forward,backward")
    assert model_of({"layernorm": f"file:{tmp_path / 'twice.py'}"})[0] == pytest.approx(model_of("numpy")[0])


@pytest.mark.parametrize("choice, words", [
    ({"gelu": "file:none.c"}, "must be an existing .c"), ({"adamw": "file:{0}"}, "cannot be replaced"),
    ({"gelu": "file:{0}"}, "float32"),
])
def test_what_cannot_be_used_in_a_model_is_one_clear_error(tmp_path, choice, words):
    pytest.importorskip("cffi")
    path = tmp_path / "a.c"
    path.write_text("void gelu_forward(float* out, const float* x, int N) { for (int i = 0; i < N; i++) out[i] = x[i]; "
                    "}")
    with pytest.raises(ValueError, match=words):
        ops = select({op: target.format(path) for op, target in choice.items()})
        ops.gelu_forward(np.zeros(3))
