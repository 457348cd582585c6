// A buffer of zeros that lends its memory: the gradients, which are needed from a step's backward to its update only.
//
// Cleared, its pages go to the arena (memory.h), where the next forward finds them. Before a part of it is written, the
// model says so, and idle pages come back for it. Whoever writes without saying so gets new memory from the system.
#include "common.h"

class LentBuffer {
    py::array array;                                       // keeps the memory alive
    char *begin, *end;                                     // of the huge pages that lie in it as a whole
    std::vector<bool> missing;                             // of each page: cleared, and not asked for since

public:
    explicit LentBuffer(py::array buffer) : array(buffer) {
        check_contiguous("buffer", buffer);
        if (!buffer.writeable()) fail("buffer must be writeable");
        auto first = reinterpret_cast<intptr_t>(buffer.mutable_data());
        begin = reinterpret_cast<char*>((first + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
        end = std::max(begin, reinterpret_cast<char*>((first + buffer.nbytes()) / HUGE_PAGE * HUGE_PAGE));
        missing.resize((end - begin) / HUGE_PAGE, true);
        arena().expect_loans(end - begin);
    }
    ~LentBuffer() { arena().expect_loans(begin - end); }
    LentBuffer(const LentBuffer&) = delete;

    void clear() {
        char* first = static_cast<char*>(array.mutable_data());
        if (begin == end) return void(std::memset(first, 0, array.nbytes()));
        std::memset(first, 0, begin - first);
        std::memset(end, 0, first + array.nbytes() - end);
        for (size_t i = 0; i < missing.size(); i++)
            if (in_memory(i)) arena().lend(begin + i * HUGE_PAGE);
        missing.assign(missing.size(), true);
    }

    // Bytes [from, to) will be written now.
    void expect(int64_t from, int64_t to) {
        if (from < 0 || from > to || to > array.nbytes()) fail("expect: from and to must lie in the buffer, in order");
        char* first = static_cast<char*>(array.mutable_data());
        std::vector<char*> wanted;
        for (size_t i = 0; i < missing.size(); i++) {
            char* page = begin + i * HUGE_PAGE;
            if (!missing[i] || page + HUGE_PAGE <= first + from || page >= first + to) continue;
            missing[i] = false;
            if (!in_memory(i)) wanted.push_back(page);     // else somebody wrote without saying so
        }
        arena().fetch(wanted);
    }

private:
    bool in_memory(size_t i) const {
        std::vector<unsigned char> small(HUGE_PAGE / sysconf(_SC_PAGESIZE));
        if (mincore(begin + i * HUGE_PAGE, HUGE_PAGE, small.data())) return true;
        return std::any_of(small.begin(), small.end(), [](unsigned char page) { return page & 1; });
    }
};

void bind_memory(py::module_& m) {
    py::class_<LentBuffer>(m, "LentBuffer")
        .def(py::init<py::array>(), py::arg("buffer"))
        .def("clear", &LentBuffer::clear)
        .def("expect", &LentBuffer::expect, py::arg("begin"), py::arg("end"));
}
