// The extension module of one instruction set. All kernels are one translation unit: it compiles in seconds, and the
// module's name is the only thing that differs between builds (setup.py defines MODULE).
#include "adamw.cpp"
#include "layernorm.cpp"

PYBIND11_MODULE(MODULE, m) {
    m.doc() = "minillm's kernels for one instruction set";
    bind_adamw(m);
    bind_layernorm(m);
    m.def("max_threads", &omp_get_max_threads);
    m.def("set_threads", &omp_set_num_threads, py::arg("n"));
}
