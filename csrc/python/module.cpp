// The extension module of one instruction set. All kernels are one translation unit: it compiles in seconds, and the
// module's name is the only thing that differs between builds (setup.py defines MODULE).
#include "adamw.cpp"
#include "attention.cpp"
#include "attention_bf16.cpp"
#include "cross_entropy.cpp"
#include "distillation_loss.cpp"
#include "dropout.cpp"
#include "embedding.cpp"
#include "gelu.cpp"
#include "head.cpp"
#include "layernorm.cpp"
#include "linear.cpp"
#include "linear_bf16.cpp"
#include "linear_cross_entropy.cpp"
#include "linear_cross_entropy_bf16.cpp"
#include "linear_ladder.cpp"
#include "memory.cpp"
#include "mlp.cpp"
#include "mlp_bf16.cpp"
#include "sum_squares.cpp"
#include "decode.cpp"                  // uses the kernels above

PYBIND11_MODULE(MODULE, m) {
    m.doc() = "minillm's kernels for one instruction set";
    bind_adamw(m);
    bind_attention(m);
    bind_attention_bf16(m);
    bind_cross_entropy(m);
    bind_decode(m);
    bind_distillation_loss(m);
    bind_dropout(m);
    bind_embedding(m);
    bind_gelu(m);
    bind_head(m);
    bind_layernorm(m);
    bind_linear(m);
    bind_linear_bf16(m);
    bind_linear_cross_entropy(m);
    bind_linear_cross_entropy_bf16(m);
    bind_linear_ladder(m);
    bind_memory(m);
    bind_mlp(m);
    bind_mlp_bf16(m);
    bind_sum_squares(m);
    m.def("max_threads", &omp_get_max_threads);
    m.def("set_threads", &omp_set_num_threads, py::arg("n"));
}
