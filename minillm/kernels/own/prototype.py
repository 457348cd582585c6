"""What a C or C++ source says of its functions: their prototypes, and the comments that map them to ops.

    // minillm: layernorm_forward(out, mean, rstd, inp=x, weight, bias, B, T, C)
    void layernorm_forward(float* out, float* mean, float* rstd, const float* inp, float* weight, ...) { ... }

No C compiler's understanding is needed for that: pointers to numbers and numbers are all that a kernel takes.
"""
import re
from typing import NamedTuple

TYPES = {   # C type -> NumPy's
    "float": "float32", "double": "float64", "int": "int32", "int32_t": "int32", "unsigned": "uint32",
    "unsigned int": "uint32", "uint32_t": "uint32", "long": "int64", "long long": "int64", "long int": "int64",
    "int64_t": "int64", "ptrdiff_t": "int64", "ssize_t": "int64", "intptr_t": "int64", "size_t": "uint64",
    "unsigned long": "uint64", "unsigned long long": "uint64", "uint64_t": "uint64",
    "cudaStream_t": "uint64",
}
QUALIFIERS = {"const", "restrict", "__restrict", "__restrict__", "volatile", "register", "__const", "std::"}
KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "defined", "else"}
MAPPING = re.compile(r"minillm:\s*(?:(\w+)\s*:)?\s*(\w+)\s*\(((?:[^(){};]|\(\w*\))*)\)")


class Parameter(NamedTuple):
    """One parameter of a C function."""

    name: str
    type: str                       # C type without qualifiers, "float"
    pointer: bool


class Prototype(NamedTuple):
    """A function as its source declares it."""

    name: str
    returns: str                    # C type, or "void"
    parameters: tuple[Parameter, ...]


class Mapping(NamedTuple):
    """A line that says which argument is which: `// minillm: [op:] name(theirs=ours, ...)`."""

    op: str                         # "" where the line does not say
    name: str
    items: tuple[str, ...]


def read_mappings(text: str) -> dict[str, Mapping]:
    """{function: mapping} of the comments of a source, or of --bind. A comment may go on over several lines of //."""
    joined = re.sub(r"\n\s*//(?!\s*minillm:)", " ", text)
    found = [Mapping(op, name, tuple(filter(None, (item.strip() for item in split(items)))))
             for op, name, items in MAPPING.findall(joined)]
    return {mapping.name: mapping for mapping in found}


def split(text: str) -> list[str]:
    """The parts between commas that are in no bracket: "a, b=[T,T]" -> ["a", " b=[T,T]"]."""
    return re.split(r",(?![^\[(]*[\])])", text)


def read_prototypes(source: str) -> dict[str, Prototype]:
    """{name: prototype} of every function that a source defines or declares with plain numbers and pointers."""
    plain = without_comments(source)
    found: dict[str, Prototype] = {}
    for head, name, inside in re.findall(r"([\w:*&\s]+?)\b(\w+)\s*\(([^(){};]*)\)\s*(?:noexcept\s*)?(?=[{;])", plain):
        parameters = read_parameters(inside)
        if name in KEYWORDS or parameters is None or not head.split():
            continue
        returns = " ".join(word for word in head.split() if word not in QUALIFIERS | {"static", "inline", "extern"})
        found.setdefault(name, Prototype(name, "void" if returns not in TYPES else returns, tuple(parameters)))
    return found


def without_comments(source: str) -> str:
    """The source without comments, strings and preprocessor lines, line breaks kept."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
    plain = token.sub(lambda match: " " if match[0][0] == "/" else '""', source)
    plain = re.sub(r'extern\s*""', "extern", plain)
    return re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", "", plain, flags=re.MULTILINE)


def read_parameters(text: str) -> list[Parameter] | None:
    """The parameters, or None where one is not a number or a pointer to numbers (such a function is no kernel)."""
    if text.strip() in ("", "void"):
        return None
    found = [read_parameter(part) for part in text.split(",")]
    return None if None in found else found                                 # type: ignore[return-value]


def read_parameter(text: str) -> Parameter | None:
    """`const float* __restrict__ inp`, `float x[]`, `int B` or `size_t N = 0`."""
    text = text.partition("=")[0]
    pointer = text.count("*") + text.count("[") == 1
    words = [word.removeprefix("std::") for word in re.sub(r"\*|\[[^]]*\]", " ", text).split()]
    words = [word for word in words if word not in QUALIFIERS]
    if len(words) < 2 or text.count("*") + text.count("[") > 1 or "&" in text:
        return None
    kind = " ".join(words[:-1])
    return Parameter(words[-1], kind, pointer) if kind in TYPES else None
