// The extension of one instruction set, minillm._cpp.MODULE: all functions that the files of csrc/cpu register.
//
// The same sources are compiled once per instruction set (see setup.py), each time into a module of its own, so that
// nothing compiled for AVX-512 can be linked into the module that an older CPU loads. Python picks the module at import.
// To add an op, see register.h.
#include <pybind11/pybind11.h>

#include "cpu/isa/threads.h"
#include "cpu/memory/lent_pages.h"
#include "python/register.h"

namespace py = pybind11;

namespace minillm {
namespace {

std::unique_ptr<LentPages> lent_pages(const py::object& buffer) {
    auto a = argument<Array>(Object(buffer.inc_ref().ptr()), "buffer");
    check_contiguous("buffer", a);
    if (!a.writeable) fail("buffer must be writeable");
    return std::make_unique<LentPages>(a.data, a.size() * a.itemsize);
}

void expect(LentPages& pages, int64_t begin, int64_t end) {
    if (begin < 0 || begin > end || end > pages.bytes()) fail("expect: from and to must lie in the buffer, in order");
    pages.expect(begin, end);
}

}  // namespace
}  // namespace minillm

PYBIND11_MODULE(MODULE, m) {
    m.doc() = "minillm's kernels for one instruction set";
    minillm::add_functions(m.ptr());
    m.def("max_threads", &omp_get_max_threads);
    m.def("set_threads", &omp_set_num_threads, py::arg("n"));
    py::class_<minillm::LentPages>(m, "LentBuffer", py::module_local())
        .def(py::init(&minillm::lent_pages), py::arg("buffer"), py::keep_alive<1, 2>())
        .def("clear", &minillm::LentPages::clear)
        .def("expect", &minillm::expect, py::arg("begin"), py::arg("end"));
}
