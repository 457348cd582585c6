#!/usr/bin/env bash
# Build the kernels for a sanitizer, in a copy of the tree, and run the op tests under it.
#   bash tests/sanitize.sh [address|thread] [instruction set] [python]
# address: out-of-bounds, use after free, undefined behaviour.
# thread: data races between Python threads that call kernels at once (the pool of memory, thread-local scratch). It runs with
# OMP_NUM_THREADS=1: libgomp is not built for the sanitizer, which cannot see its barriers and would call every parallel
# region a race. Races inside regions are looked for by the tests that compare bits with 1, 2 and 3 threads.
set -euo pipefail
kind=${1:-address} isa=${2:-scalar} python=${3:-python3}
case $kind in address | thread) ;; *) echo "sanitize: $kind: expected address or thread" >&2; exit 2 ;; esac
case $isa in scalar | avx2 | avx512 | amx) ;; *) echo "sanitize: $isa: expected scalar, avx2, avx512 or amx" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r minillm csrc tests benchmarks setup.py pyproject.toml README.md LICENSE "$copy"
cd "$copy"
find minillm -name '*.so' -delete
case $kind in
    address) flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined"; library=libasan.so; options="detect_leaks=0:detect_stack_use_after_return=0" ;;   # Python itself leaks
    thread) flags=-fsanitize=thread; library=libtsan.so; options="halt_on_error=1:ignore_noninstrumented_modules=1"; export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 ;;
esac
CXXFLAGS="$flags -O1 -g" MINILLM_CUDA=0 MINILLM_BUILD=$isa,data "$python" setup.py -q build_ext --inplace
echo "sanitize: $kind, $isa"
tests=(-k "cpu or kernel or gemm or bf16 or cpp or core" tests/test_ops.py tests/test_bad_inputs.py tests/test_kernels.py
       tests/test_gemm.py tests/test_bf16.py tests/test_minhash.py)
if [ "$kind" = thread ]; then tests=(-k "many_threads" tests/test_kernels.py); fi
MINILLM_CPU=$isa LD_PRELOAD="$(g++ -print-file-name=$library) $(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=$options TSAN_OPTIONS=$options \
    "$python" -m pytest -q -s -p no:cacheprovider "${tests[@]}"      # -s: what is captured dies with the process
