// Matmuls of a warp (mma.h).
#include "../mma.h"
#include "memory.h"
#include "report.h"

using namespace minillm_cuda;
#define PLACE reinterpret_cast<uintptr_t>(__builtin_return_address(0))

namespace {
constexpr size_t MOST = 32 * 16;            // elements of a factor
// What the lanes hold of a matrix, side by side: n floats each.
void gathered(const float* mine, int n, float* all, uintptr_t place) {
    for (int done = 0; done < n; done += 12) {
        uint64_t words[6] = {};
        const int now = n - done < 12 ? n - done : 12;
        std::memcpy(words, mine + done, size_t(now) * 4);
        const auto lanes = gather(Kind::matrix, ~0u, words, 6, place);
        for (int lane = 0; lane < 32; lane++)
            if (lanes->present >> lane & 1) std::memcpy(all + lane * n + done, lanes->values[lane], size_t(now) * 4);
    }
}
}  // namespace

extern "C" {
void minillm_cuda_check_matrix(const void* p, unsigned stride_bytes) {
    if (stride_bytes % 16)
        found({"misaligned", "error", say("a matrix of wmma has rows 16 bytes or a multiple apart: got ", stride_bytes),
               PLACE});
    if (uintptr_t(p) % 32)
        found({"misaligned", "error",
               say("a matrix of wmma begins at a multiple of 32 bytes: this one does not, ", what_is(uintptr_t(p))),
               PLACE});
}
void minillm_cuda_meet_for_matrix() { gather(Kind::matrix, ~0u, nullptr, 0, PLACE); }
void minillm_cuda_move(void* to, const void* from, size_t bytes, int writes) {
    touch(uintptr_t(writes ? to : from), bytes, (writes ? WRITE : READ) | UNSAMPLED, PLACE);
    std::memcpy(to, from, bytes);
}
void minillm_cuda_matmul(int m, int n, int k, const float* a, const float* b, float* c) {
    float left[MOST] = {}, right[MOST] = {};
    gathered(a, m * k / 32, left, PLACE);
    gathered(b, k * n / 32, right, PLACE);
    const int mine = m * n / 32, first = current->lane * mine;
    for (int i = 0; i < mine; i++) {
        const int row = (first + i) / n, column = (first + i) % n;
        float sum = 0;
        for (int j = 0; j < k; j++) sum += left[row * k + j] * right[j * n + column];
        c[i] += sum;
    }
}
}
