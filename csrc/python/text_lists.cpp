// Ids as a Python list, which is what most callers of `encode` want. To make an int for each token costs more than to
// encode it, so each id of a vocabulary has one int, made once, and a list of ids is a list of references to them.
#include <Python.h>

#include "python/register.h"
#include "text/pool.h"

namespace minillm::text {
namespace {

constexpr int64_t AHEAD = 16;                          // ids whose ints are fetched before they are needed

template <class T>
Object list_of(const Array& ids, PyObject* ints) {
    const T* id = input<T>("ids", ids, {ANY});
    const int64_t n = ids.size(), known = PyList_GET_SIZE(ints);
    Object list(PyList_New(n));
    if (!list.get()) throw std::bad_alloc();
    auto items = reinterpret_cast<PyListObject*>(list.get())->ob_item;
    if (n * sizeof *items >= LARGE) ask_for_huge_pages_inside(items, n * sizeof *items);
    for (int64_t i = 0; i < n; i++) {
        if (i + AHEAD < n && id[i + AHEAD] < known) __builtin_prefetch(PyList_GET_ITEM(ints, id[i + AHEAD]), 1);
        if (id[i] >= known) fail("ids must be below ", known, ": got ", int64_t(id[i]));
        PyObject* one = PyList_GET_ITEM(ints, id[i]);
        Py_INCREF(one);
        PyList_SET_ITEM(list.get(), i, one);
    }
    return list;
}

// ints: the list 0, 1, 2, ... of every id.
Object id_list(const Array& ids, const List& ints) {
    if (ids.dtype == "uint16") return list_of<uint16_t>(ids, ints.get());
    return list_of<uint32_t>(ids, ints.get());
}

const Register registered[] = {{"id_list(ids, ints)", &id_list}};

}  // namespace
}  // namespace minillm::text
