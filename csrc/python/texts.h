// Between Python and the C++ that reads texts: the bytes of str, and an array that takes over memory.
#pragma once

#include "python/register.h"
#include "text/parallel.h"
#include "text/pool.h"

namespace minillm {

// The UTF-8 of a list's texts, which are held: another thread may empty the list in the meantime.
struct HeldTexts : Texts {
    std::vector<Object> held;
    explicit HeldTexts(const List& list) {
        for (int64_t i = 0; i < list.size(); i++) {
            held.push_back(list[i]);
            push_back(argument<std::string_view>(held.back(), "texts"));
        }
    }
};

// Gives the ids' memory to a NumPy array.
template <class T>
Object as_array(text::Sink<T>& sink) {
    int64_t count = sink.count;
    return array_of_memory(DTYPE<T>, {count}, sink.release(), std::free);
}
}  // namespace minillm
