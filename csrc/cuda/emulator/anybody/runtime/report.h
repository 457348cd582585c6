// Findings: one JSON object a line, written at once, so that a crash loses nothing (interface.h has the format).
#pragma once

#include <cstdint>
#include <string>

namespace minillm_cuda {
struct Finding {
    const char* kind;
    const char* severity;
    std::string text;          // `{other}` in it is replaced by the place of `other`
    uintptr_t pc = 0, other = 0;
    const char* file = "";     // where the place is known without its pc
    int line = 0;
};

// Report it, unless the same kind was found in the same places before: then it is only counted.
void found(const Finding& finding);
// Was this kind found in this place already? Counts it if so: spares making the text once more.
bool known(const char* kind, uintptr_t pc, uintptr_t other);
void write_counts();
int errors_found();

inline std::string str(const std::string& x) { return x; }
inline std::string str(const char* x) { return x; }
template <class T>
std::string str(T x) {
    return std::to_string(x);
}
template <class... T>
std::string say(const T&... parts) {
    return (std::string() + ... + str(parts));
}
}  // namespace minillm_cuda
