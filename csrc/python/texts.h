// Between Python and the C++ that reads texts: the bytes of str, and an array that takes over memory.
#pragma once

#include "python/register.h"
#include "text/parallel.h"
#include "text/pool.h"

namespace minillm {

// They live as long as the list, which nobody may change meanwhile.
inline Texts utf8_of_all(const List& texts) {
    Texts found;
    for (int64_t i = 0; i < texts.size(); i++) found.push_back(argument<std::string_view>(texts[i], "texts"));
    return found;
}

// Gives the ids' memory to a NumPy array.
template <class T>
Object as_array(text::Sink<T>& sink) {
    int64_t count = sink.count;
    return array_of_memory(DTYPE<T>, {count}, sink.release(), std::free);
}
}  // namespace minillm
