#include "report.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <tuple>

#include "engine.h"

namespace minillm_cuda {
namespace {
struct Seen {
    int id;
    int64_t count;
};
using Key = std::tuple<const char*, uintptr_t, uintptr_t, int>;
std::map<Key, Seen>& seen() {
    static auto* all = new std::map<Key, Seen>();  // never freed: findings come as late as the last destructor
    return *all;
}
int errors = 0;

int output() {
    static const char* path = std::getenv("MINILLM_CUDA_REPORT");
    static const int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : 2;
    return file;
}

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (static_cast<unsigned char>(c) < 32) out += ' ';
        else out += c;
    }
    return out + '"';
}

void write_line(const std::string& line) {
    if (write(output(), (line + "\n").c_str(), line.size() + 1) < 0) return;
}

std::string triple(const Index& i) { return say("[", i.x, ",", i.y, ",", i.z, "]"); }

// The offset of a code address in its module, one before the address to which the call returns.
std::pair<std::string, uintptr_t> offset_of(uintptr_t pc) {
    Dl_info info;
    if (!pc || !dladdr(reinterpret_cast<void*>(pc - 1), &info) || !info.dli_fname) return {"", 0};
    return {info.dli_fname, pc - 1 - reinterpret_cast<uintptr_t>(info.dli_fbase)};
}
}  // namespace

bool known(const char* kind, uintptr_t pc, uintptr_t other) {
    const auto place = seen().find({kind, pc, other, 0});
    if (place == seen().end()) return false;
    place->second.count++;
    return true;
}

void found(const Finding& f) {
    if (f.line) {
        Seen& s = seen()[{f.kind, f.pc, f.other, f.line}];
        if (s.count++) return;
        s.id = int(seen().size());
    } else if (known(f.kind, f.pc, f.other)) {
        return;
    } else {
        const int id = int(seen().size()) + 1;
        seen()[{f.kind, f.pc, f.other, 0}] = {id, 1};
    }
    errors += !std::strcmp(f.severity, "error");
    const auto [module, pc] = offset_of(f.pc);
    const auto [module_too, other] = offset_of(f.other);
    std::string line = say("{\"id\": ", seen().size(), ", \"kind\": ", quoted(f.kind),
                           ", \"severity\": ", quoted(f.severity), ", \"text\": ", quoted(f.text), ", \"pc\": ", pc,
                           ", \"other\": ", other, ", \"module\": ", quoted(module.empty() ? module_too : module),
                           ", \"file\": ", quoted(f.file), ", \"line\": ", f.line);
    if (current) line += say(", \"block\": ", triple(current->block->index), ", \"thread\": ", triple(current->id));
    line += say(", \"kernel\": ", quoted(launched ? launched->name : ""), ", \"count\": 1}");
    write_line(line);
}

void write_counts() {
    for (const auto& [key, s] : seen())
        if (s.count > 1) write_line(say("{\"id\": ", s.id, ", \"count\": ", s.count, "}"));
}

int errors_found() { return errors; }
}  // namespace minillm_cuda
