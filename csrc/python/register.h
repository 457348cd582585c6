// To add an op: one file csrc/cpu/NAME.cpp with a kernel, a binding on the types of array.h, and at its end a line as
//
//   const Register registered[] = {{"NAME_forward(x, eps=1e-5)", &NAME_forward}, {"NAME_backward(dout, cache)", ...}};
//
// which makes the functions known to Python under these signatures, with keywords and defaults. No other file changes.
#pragma once

#include "array.h"

namespace minillm {

struct Function {
    string signature;                                      // "name(a, b=1.0)"
    size_t arity;
    void (*function)();                                    // whatever its type: `call` knows
    Object (*call)(void (*function)(), const Object* values, const string* names);
};

struct Registry {
    std::vector<Function> functions;
    std::vector<std::pair<string, Object>> constants;
};
Registry& registry();

struct Register {
    template <class R, class... A>
    Register(const string& signature, R (*function)(A...)) {
        registry().functions.push_back({signature, sizeof...(A), reinterpret_cast<void (*)()>(function),
                                        [](void (*f)(), const Object* values, const string* names) {
                                            auto typed = reinterpret_cast<R (*)(A...)>(f);
                                            return call(typed, values, names, std::index_sequence_for<A...>());
                                        }});
    }
    Register(const string& name, const Object& constant) { registry().constants.push_back({name, constant}); }

private:
    template <class R, class... A, size_t... I>
    static Object call(R (*f)(A...), const Object* values, const string* names, std::index_sequence<I...>) {
        if constexpr (std::is_void_v<R>) return f(argument<std::decay_t<A>>(values[I], names[I])...), Object();
        else return f(argument<std::decay_t<A>>(values[I], names[I])...);
    }
};

void add_functions(_object* module);                       // to a Python module: all that are registered
_object* new_module(const char* name, const char* documentation);  // for PyInit_name: a module with all of that

}  // namespace minillm

// At the end of one file of an extension: what Python calls to load minillm._cpp.MODULE.
#define MINILLM_TEXT(name) #name
#define MINILLM_INIT(name, documentation)                                        \
    extern "C" __attribute__((visibility("default"))) _object* PyInit_##name() { \
        return minillm::new_module(MINILLM_TEXT(name), documentation);           \
    }
#define MINILLM_INIT_OF(name, documentation) MINILLM_INIT(name, documentation)
