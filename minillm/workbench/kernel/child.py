"""The process in which somebody else's kernel runs: it may crash, hang, exit or lie, and only this process suffers.

It imports nothing of minillm, and nobody here can: what is right is known to the parent alone. The parent owns all
arrays, as shared memory; inputs are mapped read-only, results for writing, each between two pages that nobody may
touch. The parent's clock runs from the byte that says "go" to the byte that says "done".

Started as `python -I child.py FD_IN FD_OUT` with its job as the first line.
"""
import importlib.util
import json
import os
import pickle
import resource
import sys
from typing import Any

PAGE = 4096
READ, WRITE = 1, 2                      # PROT_READ, PROT_WRITE
SHARED, PRIVATE, FIXED, ANONYMOUS = 1, 2, 16, 32
SYS_PTRACE, DROP_BOUND, SET_DUMPABLE, SUBREAPER = 19, 24, 4, 36         # a capability, and options of prctl


class NoReference:
    """`import minillm` fails here: a kernel that falls back on the reference is no kernel."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("minillm", "benchmarks"):
            raise ImportError(f"{name} is not to be had in the process that runs a kernel")


class Room:
    """The mappings of one case."""

    def __init__(self, ffi: Any, files: list[int]) -> None:
        self.ffi, self.files, self.mapped = ffi, files, []
        self.c = ffi.dlopen(None)

    def place(self, region: dict[str, Any]) -> int:
        """Map a region between two guard pages: the address of its array."""
        length = region["pages"] * PAGE
        start = int(self.ffi.cast("intptr_t",
                                  self.c.mmap(self.ffi.NULL, length + 2 * PAGE, 0, PRIVATE | ANONYMOUS, -1, 0)))
        self.mapped.append((start, length + 2 * PAGE))
        at = self.ffi.cast("void *", start + PAGE)
        got = self.c.mmap(at, length, READ | WRITE * region["written"], SHARED | FIXED, self.files[region["written"]],
                          region["offset"])
        if got != at:
            raise MemoryError("mmap failed")
        return start + PAGE + region["inside"]

    def leave(self) -> None:
        for start, length in self.mapped:
            self.c.munmap(self.ffi.cast("void *", start), length)
        self.mapped.clear()


def main() -> None:
    inbox, outbox = os.fdopen(int(sys.argv[1]), "rb", 0), int(sys.argv[2])
    job = json.loads(inbox.readline())
    if job.get("entrant"):
        sys.path.append(job["root"])                            # one of ours, to be timed beside it
    else:
        sys.meta_path.insert(0, NoReference)
    from cffi import FFI
    ffi = FFI()
    ffi.cdef("void *mmap(void *, size_t, int, int, int, long); int munmap(void *, size_t);")
    limit(job)
    shut(ffi)
    work = (Library if job["library"] else Python)(ffi, job, Room(ffi, job["files"]))
    send(outbox, {"ready": True})
    while line := inbox.readline():
        request = json.loads(line)
        try:
            send(outbox, {"addresses": work.prepare(request)})
        except Exception as raised:                         # by their forward, which makes the cache of a backward
            send(outbox, {"error": f"{type(raised).__name__}: {raised}"})
            continue
        while (word := inbox.read(1)) in (b"g", b"s", b"n"):        # go, tell the state, or do nothing
            error = work.run() if word == b"g" else state() if word == b"s" else None
            os.write(outbox, b"e" if error else b"d")
            if error:
                send(outbox, {"error": error})
        work.room.leave()


def state(tiny: float = 5e-324, one: float = 1.0, small: float = 2.0 ** -60) -> str:
    """What the kernel has left of the floating-point state, if it is not as it was: flushing, or another rounding."""
    if tiny * one == 0 or (2.0 ** -1022) * (one / 2) == 0:
        return "denormal numbers are flushed to zero (-Ofast and -ffast-math do that as well)"
    return "" if one + small == one == one - small / 2 and -one - small == -one else "rounding is not to nearest"


def send(outbox: int, message: dict[str, Any]) -> None:
    os.write(outbox, json.dumps(message).encode() + b"\n")


def limit(job: dict[str, Any]) -> None:
    for name, most in ((resource.RLIMIT_AS, job["memory"]), (resource.RLIMIT_CPU, job["seconds"]),
                       (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(name, (most, most))


def shut(ffi: Any) -> None:
    """No process of the harness can look into the memory of another, not even as root: answers are kept there."""
    ffi.cdef("int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long);"
             "int capget(void *, void *); int capset(void *, void *);")
    c, header, sets = ffi.dlopen(None), ffi.new("unsigned[]", [0x20080522, 0]), ffi.new("unsigned[6]")
    c.capget(header, sets)
    for i in range(3):                                      # effective, permitted, inheritable
        sets[i] &= ~(1 << SYS_PTRACE)
    c.prctl(DROP_BOUND, SYS_PTRACE, 0, 0, 0)
    c.capset(header, sets)
    c.prctl(SET_DUMPABLE, 0, 0, 0, 0)


class Library:
    """Compiled functions, each called with the addresses of its arguments."""

    def __init__(self, ffi: Any, job: dict[str, Any], room: Room) -> None:
        self.ffi, self.room = ffi, room
        ffi.cdef("".join(f"void minillm_call_{i}(void **);" for i in range(job["functions"]))
                 + "void minillm_watch(long *); void minillm_sizes(const size_t *); const char *minillm_problem(void);")
        self.library = ffi.dlopen(job["library"])
        self.sized = job.get("sized", False)            # CUDA: copies arrays to its device, and says what went wrong
        if not self.sized:
            self.library.minillm_watch(ffi.cast("long *", room.place(job["note"])))
            room.mapped.clear()                         # the note stays

    def prepare(self, request: dict[str, Any]) -> list:
        self.function = getattr(self.library, f"minillm_call_{request['function']}")
        self.addresses = [[self.room.place(region) for region in one] for one in request["sets"]]
        self.calls = [self.ffi.new("void *[]", [self.ffi.cast("void *", address) for address in one] or [self.ffi.NULL])
                      for one in self.addresses]
        self.sizes = [self.ffi.new("size_t[]", [region["nbytes"] for region in one]) for one in request["sets"]]
        return self.addresses

    def run(self) -> str | None:
        if self.sized:
            return self.run_on_device()
        function = self.function
        for call in self.calls:
            function(call)
        return None

    def run_on_device(self) -> str | None:
        for call, sizes in zip(self.calls, self.sizes):
            self.library.minillm_sizes(sizes)
            self.function(call)
            if problem := self.ffi.string(self.library.minillm_problem()).decode():
                return problem
        return None


def theirs(path: str) -> Any:
    """Somebody's Python file as a module."""
    spec = importlib.util.spec_from_file_location("kernel_under_test", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_under_test"] = module
    spec.loader.exec_module(module)
    return module


def ours(entrant: str, op: str) -> Any:
    """The functions of a backend, or PyTorch's for the op by the same names."""
    if entrant != "torch":
        from minillm.kernels.select import select
        return select(entrant)
    from minillm.workbench.kernel.torch_pair import torch_functions
    return torch_functions(op)


class Python:
    """A pair of Python functions; what they return must be exactly arrays of the right shape and dtype."""

    def __init__(self, ffi: Any, job: dict[str, Any], room: Room) -> None:
        import numpy
        self.np, self.ffi, self.room, self.cache = numpy, ffi, room, None
        module = ours(job["entrant"], job["op"]) if job.get("entrant") else theirs(job["python"])
        self.functions = {direction: getattr(module, name) for direction, name in job["names"].items()}

    def array(self, region: dict[str, Any]) -> Any:
        address = self.room.place(region)
        buffer = self.ffi.buffer(self.ffi.cast("char *", address), region["nbytes"])
        array = self.np.frombuffer(buffer, region["dtype"]).reshape(region["shape"])
        array.flags.writeable = bool(region["written"])
        return array

    def values(self, named: dict[str, Any]) -> dict[str, Any]:
        """Arrays of the shared memory, and what else the function is given: {name: value}."""
        return {name: self.array(value) if isinstance(value, dict) else tuple(value) if isinstance(value, list)
                else value
                for name, value in named.items()}

    def prepare(self, request: dict[str, Any]) -> list:
        self.direction, self.kind, self.sets = request["direction"], request["kind"], []
        for one in request["sets"]:
            given = self.values(one["given"])
            cache = pickle.loads(bytes.fromhex(one["cache"])) if one["cache"] else None
            if self.kind == "pair" and self.direction == "backward" and "forward" in self.functions:
                cache = self.functions["forward"](*self.values(one["args"]).values())[1]
            self.sets.append((given, [(region["name"], self.array(region)) for region in one["results"]], cache))
        return []

    def run(self) -> str | None:
        for given, results, cache in self.sets:
            try:
                found = self.call(given, results, cache)
            except Exception as raised:
                return f"{type(raised).__name__}: {raised}"
            if self.kind not in ("update", "fills") and (error := self.leave(found, results)):
                return error
        return None

    def call(self, given: dict[str, Any], results: list, cache: Any) -> Any:
        """What the function returns, without the cache."""
        function, arguments = self.functions[self.direction], list(given.values())
        if self.kind in ("fills", "returns"):
            return function(*arguments, *(place for _, place in results if self.kind == "fills"))
        if self.direction == "backward":
            return function(tuple(arguments) if len(arguments) > 1 else arguments[0], cache)
        found = function(*arguments)
        if self.kind == "pair":
            if not isinstance(found, tuple) or len(found) != 2:
                raise TypeError(f"forward must return (out, cache): got {type(found).__name__}")
            return found[0]
        return self.np.array([found], "float64") if self.kind == "reduce" and type(found) is float else found

    def leave(self, found: Any, results: list) -> str | None:
        """Copy the results to where they are looked for, or say what is wrong with them."""
        found = found if isinstance(found, tuple) else (found,)
        if len(found) != len(results):
            return f"it must return {len(results)} arrays ({', '.join(name for name, _ in results)}): got {len(found)}"
        for (name, place), array in zip(results, found):
            if type(array) is not self.np.ndarray:
                return f"{name} must be exactly a numpy.ndarray: got {type(array).__name__}"
            if array.shape != place.shape or array.dtype != place.dtype:
                return f"{name} must be {place.dtype} {place.shape}: got {array.dtype} {array.shape}"
            place[...] = array
        return None


if __name__ == "__main__":
    main()
