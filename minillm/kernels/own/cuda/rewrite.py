"""A .cu file and the headers beside it, rewritten into a folder as C++ for the emulator's headers.

Every line keeps its number, and `#line` names the file as its writer knows it. Headers found by `#include "..."` beside
the file or in the folders of -I are rewritten, too; those of CUDA itself come from the emulator. Libraries of finished
kernels, which the emulator does not have, are one clear error.
"""
import re
from collections.abc import Sequence
from pathlib import Path

from .assembly import rewrite_assembly
from .bounds import rewrite_bounds
from .launches import CannotRewrite, rewrite_launches
from .names import rewrite_names
from .shared import rewrite_shared
from .tokens import Token, tokens_of

LIBRARIES = {  # the beginning of a header's name -> the library
    "cublas": "cuBLAS", "cudnn": "cuDNN", "cusparse": "cuSPARSE", "cusolver": "cuSOLVER", "cufft": "cuFFT",
    "curand": "cuRAND", "nccl": "NCCL", "thrust/": "Thrust", "cub/": "CUB", "cutlass": "CUTLASS", "cute/": "CuTe",
    "cuda/": "libcu++", "nvrtc": "NVRTC", "torch/": "PyTorch", "ATen/": "PyTorch", "c10/": "PyTorch", "nvtx": "NVTX",
    "npp": "NPP", "cudnn_frontend": "cuDNN", "optix": "OptiX",
}
INCLUDE = re.compile(r'#\s*include\s*(?:"([^"\n]+)"|<([^>\n]+)>)')
DEFINE = re.compile(r"#\s*define\s+\w+(?:\([^()]*\))?")


def rewrite_file(path: Path, folder: Path, includes: Sequence[Path] = (), more: str = "") -> Path:
    """The rewritten source in `folder`, and its headers beside it; `more` is added to its end. Raises CannotRewrite
    naming file and line."""
    return Rewriter(folder, includes).file(path, more)


class Rewriter:
    """The files rewritten so far, by their own paths."""

    def __init__(self, folder: Path, includes: Sequence[Path] = ()) -> None:
        self.folder, self.includes, self.made = folder, includes, dict[Path, Path]()

    def file(self, path: Path, more: str = "") -> Path:
        path = path.resolve()
        if path not in self.made:
            self.made[path] = self.folder / f"{len(self.made)}_{path.stem}{'.h' if self.made else '.cpp'}"
            text = path.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")
            try:
                made = self.rewritten(text + more, path.parent)
            except CannotRewrite as error:
                raise CannotRewrite(f"{path.name}, {error}") from None
            self.made[path].write_text(f'#line 1 "{path}"\n{made}\n')
        return self.made[path]

    def rewritten(self, text: str, beside: Path) -> str:
        tokens = tokens_of(text)
        out = rewritten_tokens(tokens)
        for at, token in enumerate(tokens):
            if token.kind == "directive" and (match := INCLUDE.match(token.text)):
                out[at] = self.include(match[1], match[2], token, beside)
        return "".join(out)

    def include(self, quoted: str, angled: str, token: Token, beside: Path) -> str:
        """The line, which names the rewritten header if it is one of theirs."""
        check_library(quoted or angled, token.line)
        found = quoted and next((folder / quoted for folder in (beside, *self.includes)
                                 if (folder / quoted).is_file()), None)
        return f'#include "{self.file(found)}"' if found else token.text


def rewritten_tokens(tokens: Sequence[Token]) -> list[str]:
    """The new text of each token."""
    out = [token.text for token in tokens]
    for rewrite in (rewrite_names, rewrite_launches, rewrite_shared, rewrite_bounds, rewrite_assembly):
        rewrite(tokens, out)
    for at, token in enumerate(tokens):
        if token.kind == "directive" and (match := DEFINE.match(token.text)):       # a macro's body
            out[at] = match[0] + "".join(rewritten_tokens(tokens_of(token.text[match.end():], token.line)))
    return out


def check_library(header: str, line: int) -> None:
    for beginning, library in LIBRARIES.items():
        if header.startswith(beginning):
            raise CannotRewrite(f"line {line}: {library} (<{header}>) is not to be had on the emulator, which runs "
                                f"kernels written out in the file alone")


def rewrite_text(text: str) -> str:
    """A source without its includes: for tests and for looking at."""
    return "".join(rewritten_tokens(tokens_of(text)))
