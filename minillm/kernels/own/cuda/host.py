"""Which functions of a .cu file can be called: host functions that launch kernels, and kernels that a line says how to
launch.

A host function is called with device pointers, as a training program calls it; with host pointers if it copies one of
its own arguments to the device (`cudaMemcpy(d_x, x, ..., cudaMemcpyHostToDevice)`). A kernel without a host function
needs

    // launch: gelu_kernel<<<(N + 255) / 256, 256>>>

whose configuration may name the kernel's own arguments, the op's sizes (B, T, C, ...) and `rows`, which is B*T.
"""
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..prototype import Parameter, Prototype, read_parameters
from .launches import CannotRewrite
from .rewrite import INCLUDE, check_library
from .shared import function_depths, statement_start
from .tokens import Token, before, is_open, partner, plain, tokens_of

SIZES = ("B", "T", "S", "C", "K", "NH", "HS", "OC", "R", "V", "N", "rows")
COPIES = ("cudaMemcpy", "cudaMemcpyAsync")
LAUNCH = re.compile(r"(?m)^[/*\s]*launch:\s*(\w+)\s*<<<(.*)>>>")
TEMPLATE = re.compile(r"^template\s*<")


class CudaFunction(NamedTuple):
    """A function that a .cu file defines at file scope."""

    prototype: Prototype
    kernel: bool                # __global__
    device: bool                # __device__ alone
    launches: bool              # itself, or through a function or macro of the file
    copies: bool                # one of its arguments from the host to the device: it takes host pointers


def functions_in(text: str) -> dict[str, CudaFunction]:
    """{name: function} of a source, of functions that take numbers and pointers to numbers."""
    tokens = tokens_of(text)
    depths, found, bodies, helpers, uploading = function_depths(tokens), {}, {}, {}, set()
    for at, token in enumerate(tokens):
        if token.text == "{" and token.kind == "punct" and depths[at] == 1 and not depths[max(before(tokens, at), 0)]:
            name, parameters = head_of(tokens, at)      # of any function: a template or one that takes a stream, too
            body = helpers[name] = tokens[at:partner(tokens, at)]
            uploading |= {name} if copies_one(body, parameters) else set()
            if made := function_at(tokens, at):
                found[name], bodies[name] = made, body
    launching = launchers(helpers | bodies) | launching_macros(tokens)
    for name, body in bodies.items():
        through = bool(launching & {token.text for token in body if token.kind == "name"})
        arguments = [parameter.name for parameter in found[name].prototype.parameters if parameter.pointer]
        copies = copies_one(body, arguments, uploading - {name})
        found[name] = found[name]._replace(launches=name in launching or through, copies=copies)
    return found


def head_of(tokens: Sequence[Token], brace: int) -> tuple[str, list[str]]:
    """Of the function whose body opens here, its name and the names among its parameters; ("", []) of no function."""
    close = before(tokens, brace)
    if close < 0 or tokens[close].text != ")":
        return "", []
    open_ = partner(tokens, close)
    return tokens[before(tokens, open_)].text, [token.text for token in tokens[open_:close] if token.kind == "name"]


def function_at(tokens: Sequence[Token], brace: int) -> CudaFunction | None:
    """The function whose body opens here, if its parameters are numbers and pointers to numbers."""
    close = before(tokens, brace)
    if close < 0 or tokens[close].text != ")":
        return None
    open_ = partner(tokens, close)
    name = before(tokens, open_)
    head = plain(tokens[statement_start(tokens, name):name])
    parameters = read_parameters(plain(tokens[open_ + 1:close]))
    if parameters is None or tokens[name].kind != "name" or TEMPLATE.match(head):
        return None
    words = head.split()
    returns = next((word for word in words if word in ("float", "double", "int")), "void")
    device = "__device__" in words and "__host__" not in words
    return CudaFunction(Prototype(tokens[name].text, returns, tuple(parameters)), "__global__" in words, device, False,
                        False)


def launchers(bodies: Mapping[str, Sequence[Token]]) -> set[str]:
    """The functions that launch: by `<<<`, by cudaLaunchKernel, or by calling one that does."""
    found = {name for name, body in bodies.items() if any(
        is_open(token) or token.text.startswith("cudaLaunch") for token in body)}
    while more := {name for name, body in bodies.items() if name not in found and found & {t.text for t in body}}:
        found |= more
    return found


def launching_macros(tokens: Sequence[Token]) -> set[str]:
    """The names of macros whose body launches."""
    lines = [re.match(r"#\s*define\s+(\w+)", token.text) for token in tokens if token.kind == "directive"]
    return {line[1] for line in lines if line and "<<<" in line.string}


def copies_one(body: Sequence[Token], arguments: Sequence[str], uploading: Collection[str] = ()) -> bool:
    """Does a body copy one of these from the host to the device, itself or by a function that copies what it is given
    (`upload<float>(x, n)`)?"""
    for at, token in enumerate(body):
        if token.text in COPIES or token.text in uploading:
            open_ = next((i for i in range(at, len(body)) if body[i].text == "("), None)
            inside = {t.text for t in body[open_:partner(body, open_)]} if open_ else set()
            if inside & set(arguments) and (token.text in uploading or "cudaMemcpyHostToDevice" in inside):
                return True
    return False


def launch_lines(text: str) -> dict[str, str]:
    """{kernel: configuration} of the comments `// launch: kernel<<<grid, block>>>`."""
    comments = "\n".join(token.text for token in tokens_of(text) if token.kind == "comment")
    return dict(LAUNCH.findall(comments))


def with_launcher(kernel: Prototype, configuration: str) -> tuple[Prototype, str]:
    """A host function for a kernel with a launch line: (its prototype, its source in one line)."""
    known = [parameter.name for parameter in kernel.parameters]
    words = [token.text for token in tokens_of(configuration) if token.kind == "name"]
    sizes = [name for name in dict.fromkeys(words) if name in SIZES and name not in known]
    parameters = (*kernel.parameters, *(Parameter(name, "int", False) for name in sizes))
    declared = ", ".join(f"{p.type}{'*' * p.pointer} {p.name}" for p in parameters)
    source = (f"static void minillm_launch_{kernel.name}({declared}) {{ "
              f"{kernel.name}<<<{configuration}>>>({', '.join(known)}); }}")
    return Prototype(kernel.name, "void", parameters), source


def callable_functions(text: str) -> tuple[dict[str, Prototype], dict[str, str]]:
    """What of a .cu file can be called: ({name: prototype}, {kernel: source of the host function that launches it})."""
    found, lines = functions_in(text), launch_lines(text)
    prototypes = {name: f.prototype for name, f in found.items() if f.launches and not f.kernel and not f.device}
    sources = {}
    for name, configuration in lines.items():
        if name not in found or not found[name].kernel:
            kernels = [each for each, f in found.items() if f.kernel]
            raise ValueError(f"the line `launch: {name}<<<...>>>` names no kernel that takes numbers and pointers to "
                             f"numbers: the file has {', '.join(kernels) or 'none'}")
        prototypes[name], sources[name] = with_launcher(found[name].prototype, configuration)
    return prototypes, sources


def nothing_to_call(text: str, name: str) -> str:
    """Why nothing of a .cu file can be called, and what to add."""
    kernels = [each for each, f in functions_in(text).items() if f.kernel]
    if not kernels:
        for token in tokens_of(text):       # a library's kernels in place of one's own
            if token.kind == "directive" and (match := INCLUDE.match(token.text)):
                try:
                    check_library(match[1] or match[2], token.line)
                except CannotRewrite as error:
                    return f"{name}, {error}"
        return f"{name} has no kernel (__global__) and no host function that launches one"
    return (f"{name} has the kernel {kernels[0]} but nothing that launches it: add a host function such as `void "
            f"{kernels[0]}_host(float* out, ...) {{ {kernels[0]}<<<grid, block>>>(out, ...); }}`, or the line "
            f"`// launch: {kernels[0]}<<<(N + 255) / 256, 256>>>`")


def takes_host_pointers(text: str, name: str) -> bool:
    found = functions_in(text)
    return name in found and found[name].copies


