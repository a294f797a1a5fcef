// The weight gradient's products: one at a time in float, or, where the processor can, two at a
// time in bfloat16. `gather` adds what a filter's winners have seen, times their gradients, to its
// sums.
#pragma once

#include <cstring>
#include <type_traits>

#include "layers.hpp"

namespace hilum {

constexpr int SEGMENT_COLUMNS = 16;     // pooled pixels whose input is gathered from at a time
constexpr int IN_BLOCK = WIDE * LANES;  // input channels of a gathered sum: nine fit the registers
constexpr int PATCH_LINE = (2 * SEGMENT_COLUMNS + 2) * IN_BLOCK;

struct Event {  // a winner's gradient, and where in the patch its 3x3 inputs begin
    float gradient;
    int32_t at;
};

struct Single {
    using Number = float;
    static constexpr int SEGMENT_ROWS = 2;  // so that the L1 cache holds the patch

    // The channel among IN_BLOCK that a lane of the sums stands for.
    static int channel(int v, int lane) { return v * LANES + lane; }

    static void gather(const float* patch, Event* e, Event* end, float* sums) {
        vec sum[TAPS * WIDE];
        UNROLL for (int t = 0; t < TAPS * WIDE; t++) sum[t] = load(sums + t * LANES);
        for (; e < end; e++) {
            const float* seen = patch + e->at;
            const vec gradient = broadcast(e->gradient);
            UNROLL for (int dy = 0; dy < 3; dy++)
                UNROLL for (int t = 0; t < 3 * WIDE; t++)
                    sum[dy * 3 * WIDE + t] += gradient * load(seen + dy * PATCH_LINE + t * LANES);
        }
        UNROLL for (int t = 0; t < TAPS * WIDE; t++) store(sums + t * LANES, sum[t]);
    }
};

#ifdef __AVX512BF16__
// A lane multiplies a pair of numbers, one of each of two events. Interleaving two vectors of 32
// channels puts these into an order of their own.
struct Paired {
    using Number = bf16;
    static constexpr int SEGMENT_ROWS = 3;

    static int channel(int v, int lane) { return lane / 4 * 8 + v * 4 + lane % 4; }

    static void add(__m512i interleaved, __m512bh pair, vec& sum) {
        sum = (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)interleaved, pair);
    }

    static uint32_t bits(float gradient) {  // that came from bfloat16
        uint32_t found;
        std::memcpy(&found, &gradient, 4);
        return found;
    }

    static void gather(const bf16* patch, Event* e, Event* end, float* sums) {
        if ((end - e) % 2) *end++ = {0, e->at};
        vec sum[TAPS][2];
        UNROLL for (int t = 0; t < 2 * TAPS; t++) sum[t / 2][t % 2] = load(sums + t * LANES);
        for (; e < end; e += 2) {
            const uint32_t both = bits(e[0].gradient) >> 16 | bits(e[1].gradient);
            const __m512bh pair = (__m512bh)_mm512_set1_epi32((int)both);
            UNROLL for (int tap = 0; tap < TAPS; tap++) {
                const int at = tap / 3 * PATCH_LINE + tap % 3 * IN_BLOCK;
                const __m512i a = _mm512_loadu_si512(patch + e[0].at + at);
                const __m512i b = _mm512_loadu_si512(patch + e[1].at + at);
                add(_mm512_unpacklo_epi16(a, b), pair, sum[tap][0]);
                add(_mm512_unpackhi_epi16(a, b), pair, sum[tap][1]);
            }
        }
        UNROLL for (int t = 0; t < 2 * TAPS; t++) store(sums + t * LANES, sum[t / 2][t % 2]);
    }
};
template <class T>
using Products = std::conditional_t<std::is_same_v<T, bf16>, Paired, Single>;
#else
template <class T>
using Products = Single;
#endif

}  // namespace hilum
