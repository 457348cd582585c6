"""Compile a C or C++ kernel, with its functions behind a calling convention of one kind.

The source is included as it is by a few lines of ours, which add for every bound function

    void minillm_call_0(void** a) { layernorm_forward((float*)a[0], ..., *(int*)a[5]); }

so that static functions, C++ and any order of arguments are called alike: an address for each argument. A main() is
renamed. A .so is linked to instead; what it takes, only --bind can say.
"""
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import C_FLAGS
from .binding import Function, bind, op_of
from .cuda.host import callable_functions, nothing_to_call
from .prototype import Mapping, Parameter, Prototype, read_mappings, read_prototypes


class DoesNotCompile(ValueError):
    """The compiler refuses a kernel; the message holds its words."""


CPP = (".cpp", ".cc", ".cxx", ".C")
SOURCES = (".c", *CPP)


def functions_of(path: Path, op: str | None, bindings: Sequence[str] = ()) -> list[Function]:
    """The functions of a source (or .so) that are bound to `op`, or with None to any op. Raises ValueError for none."""
    text = path.read_text(errors="replace") if path.suffix in (*SOURCES, ".cu") else ""
    said = "\n".join(f"// minillm: {line.removeprefix('minillm:')}" for line in bindings)
    mappings = read_mappings(text) | read_mappings(said)
    prototypes = callable_functions(text)[0] if path.suffix == ".cu" else read_prototypes(text) | read_prototypes(
        ";\n".join([*bindings, ""]))
    if path.suffix == ".cu" and not prototypes:
        raise ValueError(nothing_to_call(text, path.name))
    chosen: list[tuple[Prototype, Mapping | None]] = [
        (prototypes[name], mapping) for name, mapping in mappings.items() if name in prototypes]
    if missing := [name for name in mappings if name not in prototypes]:
        raise ValueError(f"{path.name} has no function {missing[0]!r} that takes numbers and pointers to numbers: it "
                         f"has "
                         f"{', '.join(prototypes) or 'none'}")
    chosen += [(prototype, None) for name, prototype in prototypes.items()
               if name not in mappings and op_of(prototype, None)]
    wanted = [(prototype, called, mapping) for prototype, mapping in chosen
              if (called := mapping.op if mapping and mapping.op else op_of(prototype, mapping) or op)
              and op in (None, called)]
    found = bound_of(wanted, lenient=path.suffix == ".cu")
    if not found and op and len(prototypes) == 1:
        found = [bind(next(iter(prototypes.values())), op)]
    if not found:
        raise ValueError(f"{path.name} has no function for {'op ' + op if op else 'any op'}: its functions are "
                         f"{', '.join(prototypes) or 'none'}; name one by a comment: // minillm: FUNCTION(out, x, ...)")
    return found


def bound_of(wanted: Sequence[tuple[Prototype, str, Mapping | None]], lenient: bool) -> list[Function]:
    """Each function bound to its op. lenient: one that cannot be is passed over if others can, as teaching files have
    beside `layernorm_forward1` a `layernorm_forward(int kernel_num, ...)` that chooses among them."""
    found, errors = [], []
    for prototype, op, mapping in wanted:
        try:
            found.append(bind(prototype, op, mapping))
        except ValueError as error:
            if not lenient or mapping:
                raise
            errors.append(error)
    if errors and not found:
        raise errors[0]
    return found


def compile_kernel(path: Path, functions: Sequence[Function], folder: Path, cc: str | None = None,
                   cflags: str = C_FLAGS,
                   defines: Sequence[str] = (), includes: Sequence[str] = ()) -> Path:
    """The shared library of the functions, made in `folder`: its path. Raises DoesNotCompile with the compiler's
    words."""
    cpp = path.suffix in CPP
    shim, library = folder / ("shim.cpp" if cpp else "shim.c"), folder / f"lib{path.stem}.so"
    shim.write_text(trampolines(path, functions, cpp))
    linked = [f"-Wl,-rpath,{path.resolve().parent}", str(path.resolve())] if path.suffix == ".so" else []
    command = [*shlex.split(cc or ("g++" if cpp else "gcc")), *shlex.split(cflags), "-fPIC", "-shared", "-w",
               "-Dmain=minillm_main", "-D_GNU_SOURCE=",
               *(f"-D{item}" for item in defines),
               *(f"-I{item}" for item in (path.resolve().parent, *includes)), str(shim), "-o", str(library), *linked,
               "-lm"]
    run_compiler(command, path.name, f" to compile {path.name}: --cc names another")
    return library


def run_compiler(command: Sequence[str], what: str, without: str) -> None:
    """Raises DoesNotCompile with the compiler's words; ValueError where there is no such compiler."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(f"there is no compiler {command[0]!r}{without}") from None
    if done.returncode:
        raise DoesNotCompile(f"{what} does not compile: {shlex.join(command)} said\n{done.stderr.strip()}")


def trampolines(path: Path, functions: Sequence[Function], cpp: bool) -> str:
    """The source of the library: theirs, included, and a call of one kind for each function."""
    head = "".join(f"#include <{name}.h>\n" for name in (
        "stdint", "stddef", "sys/types", "signal", "string", "ucontext", "unistd"))
    head += f'#include "{path.resolve()}"\n' if path.suffix != ".so" else "".join(
        f"{f.returns and 'double' or 'void'} {f.name}({', '.join(declared(slot.theirs) for slot in f.slots)});\n"
        for f in functions)
    calls = "\n".join(trampoline(i, function) for i, function in enumerate(functions))
    return head + ('extern "C" {\n' if cpp else "") + WATCH + calls + ("\n}\n" if cpp else "\n")


WATCH = """
static volatile long* minillm_note;                 /* [signal, address, 1 if it wrote]: memory of the parent */
static void minillm_fault(int number, siginfo_t* info, void* context) {
    minillm_note[1] = (long)info->si_addr;
#if defined(__x86_64__)
    minillm_note[2] = number == SIGSEGV && (((ucontext_t*)context)->uc_mcontext.gregs[REG_ERR] & 2);
#endif
    minillm_note[0] = number;
    _exit(100);
}
void minillm_watch(long* note) {
    static char stack[65536];
    stack_t other = {0};
    struct sigaction action;
    int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}, i;
    minillm_note = note;
    other.ss_sp = stack;
    other.ss_size = sizeof(stack);
    sigaltstack(&other, 0);
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = minillm_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (i = 0; i < 5; ++i) sigaction(numbers[i], &action, 0);
}
"""


def declared(parameter: Parameter) -> str:
    return f"{parameter.type}{'*' * parameter.pointer} {parameter.name}"


def trampoline(number: int, function: Function) -> str:
    """void minillm_call_N(void** a), where a[i] is the address of argument i, and the last one's that of the result."""
    arguments = [f"({slot.theirs.type}*)a[{i}]" if slot.theirs.pointer else f"*({slot.theirs.type}*)a[{i}]"
                 for i, slot in enumerate(function.slots)]
    call = f"{function.name}({', '.join(arguments)})"
    result = f"*(double*)a[{len(arguments)}] = {call}" if function.returns else call
    return f"void minillm_call_{number}(void** a) {{ {result}; }}"
