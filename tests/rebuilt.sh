#!/usr/bin/env bash
# Build the kernels in another way, in a copy of the tree, and run their tests there.
#   bash tests/rebuilt.sh [address|thread|clang] [instruction set] [python]
# address: out-of-bounds, use after free, undefined behaviour.
# thread: data races between Python threads that call kernels at once (the arena, thread-local scratch). It runs with
# OMP_NUM_THREADS=1: libgomp is not built for the sanitizer, which cannot see its barriers and would call every parallel
# region a race. Races inside regions are looked for by the tests that compare bits with 1, 2 and 3 threads.
# clang: the same sources through the other compiler, $CLANG or clang++.
set -euo pipefail
kind=${1:-address} isa=${2:-scalar} python=${3:-python3}
gnu="$(g++ -print-file-name=libstdc++.so 2> /dev/null || true)"
case $kind in
    address) export CXXFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g"
             options="detect_leaks=0:detect_stack_use_after_return=0" preload="$(g++ -print-file-name=libasan.so) $gnu" ;;   # Python itself leaks
    thread) export CXXFLAGS="-fsanitize=thread -O1 -g"
            options="halt_on_error=1:ignore_noninstrumented_modules=1" preload="$(g++ -print-file-name=libtsan.so) $gnu" ;;
    clang) export CXX=${CLANG:-clang++}; options="" preload="" ;;
    *) echo "rebuilt: $kind: expected address, thread or clang" >&2; exit 2 ;;
esac
case $isa in scalar | avx2 | avx512 | amx) ;; *) echo "rebuilt: $isa: expected scalar, avx2, avx512 or amx" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r minillm csrc tests benchmarks setup.py pyproject.toml README.md LICENSE "$copy"
cd "$copy"
find minillm -name '*.so' -delete
MINILLM_CUDA=0 MINILLM_BUILD=$isa,data,text "$python" setup.py -q build_ext --inplace
echo "rebuilt: $kind, $isa"
# All but bounds on memory: a sanitized build makes its results in Python's, kept logits of small problems among them, and
# keeps for a while what was freed.
tests=(-k "(cpu or kernel or gemm or bf16 or cpp or core) and not never_in_memory and not memory_is_linear"
       --ignore tests/ops/test_toy_op.py
       tests/ops tests/cpu tests/data/test_minhash.py tests/fuzz)
workers=(-n 2 --dist loadfile --max-worker-restart 0)
if [ "$kind" = thread ]; then
    workers=()
    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    tests=(-k "many_threads" tests/cpu/test_kernels.py)
fi
# -s: what is captured dies with the process.
MINILLM_CPU=$isa LD_PRELOAD=$preload ASAN_OPTIONS=$options TSAN_OPTIONS=$options \
    "$python" -m pytest -q -s "${workers[@]}" -p no:cacheprovider "${tests[@]}"
