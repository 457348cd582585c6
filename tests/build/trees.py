"""A copy of what setup.py needs, with C++ sources of a few lines, so that tests build it in a second."""
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENDING = sysconfig.get_config_var("EXT_SUFFIX")
FILES = ["setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "minillm/__init__.py",
         "minillm/version.py", "minillm/py.typed", "minillm/_cpp/__init__.py", "minillm/kernels/load.py"]
SOURCES = {
    "csrc/python/text.cpp": '#include "text/words.h"\n#include "text/letters.h"\nint text() { return WORDS + LETTERS; '
                            '}\n',
    "csrc/text/words.cpp": '#include "text/words.h"\nint words() { return WORDS; }\n',
    "csrc/text/words.h": "#define WORDS 1\n",
    "csrc/text/letters.h": "#define LETTERS 2\n",
    "csrc/python/data.cpp": "int data() { return 3; }\n",
    "csrc/python/cuda.cpp": "int cuda() { return 5; }\n",
    "csrc/cpu/ops/gelu.cpp": "#ifdef _OPENMP\n#include <omp.h>\n#endif\nint gelu() { return 4; }\n",
}


def toy_tree(folder, sources=SOURCES):
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "minillm" / "__init__.py").write_text("")
    for name, text in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def setup(tree, *arguments, **environment):
    """setup.py, as pip runs it: (the finished process, {what it compiled})."""
    ours = {"MINILLM_BUILD": "text", "MINILLM_CUDA": "0", "CCACHE_DISABLE": "1"} | environment
    kept = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "CXXFLAGS", "LDFLAGS")}
    done = subprocess.run([sys.executable, "setup.py", *(arguments or ["build_ext", "--inplace"])], cwd=tree, text=True,
                          env=kept | ours, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    compiled = {line.split("] ")[1].split(" (")[0] for line in done.stdout.splitlines() if line.startswith("[")}
    return done, compiled


def extension(tree, name):
    return tree / "minillm" / "_cpp" / f"{name}{ENDING}"
