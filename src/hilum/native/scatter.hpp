// The input gradient's products: filters of the channels that won, each times its gradient, are added
// to a 4x4 patch of sums.
#pragma once

#include "layers.hpp"

namespace hilum {

inline float to_float(float value) { return value; }
inline float to_float(bf16 bits) { return from_bits((uint32_t)bits << 16); }

// One winner at a time, in float.
template <class T>
struct OneByOne {
    using Number = float;
    static constexpr int SIZE = TAPS * LANES;  // numbers of a channel's filter for LANES inputs

    static void put(float* filter, int tap, int lane, float weight) {
        filter[tap * LANES + lane] = weight;
    }

    // Those of GROUP channels that won at PLACE.
    template <int PLACE>
    static void add(const uint8_t* winners, const T* dy, const float* filters, vec (&sum)[4][4]) {
        for (uint32_t won = channels_with(winners, PLACE); won; won &= won - 1) {
            const int c = __builtin_ctz(won);
            const vec gradient = broadcast(to_float(dy[c]));
            UNROLL for (int tap = 0; tap < TAPS; tap++)
                sum[PLACE / 2 + tap / 3][PLACE % 2 + tap % 3] +=
                    gradient * load(filters + c * SIZE + tap * LANES);
        }
    }
};

#ifdef __AVX512BF16__
// Two winners at a time, in bfloat16: each lane multiplies one number of each filter by its gradient
// and adds both to a float. To interleave a vector each of two filters gives two taps.
struct TwoByTwo {
    using Number = bf16;
    static constexpr int SIZE = (TAPS + 1) * LANES;

    static void put(bf16* filter, int tap, int lane, float weight) {
        bf16 rounded[LANES];
        store(rounded, broadcast(weight));
        filter[(tap / 2 * 2 * LANES) + lane / 4 * 8 + tap % 2 * 4 + lane % 4] = rounded[0];
    }

    template <int PLACE>
    static void add(const uint8_t* winners, const bf16* dy, const bf16* filters,
                    vec (&sum)[4][4]) {
        // Behind the last stands a channel that is not there: without a branch, it is the first,
        // times nought.
        constexpr uint64_t END = 1ull << GROUP;
        for (uint64_t won = END | channels_with(winners, PLACE); won > END; won &= won - 1) {
            const int c = __builtin_ctzll(won);
            won &= won - 1;
            const int after = __builtin_ctzll(won), next = after % GROUP;
            const uint32_t gradient = dy[next] & (after / GROUP - 1);
            const __m512bh pair = (__m512bh)_mm512_set1_epi32((int)(gradient << 16 | dy[c]));
            const bf16 *a = filters + c * SIZE, *b = filters + next * SIZE;
            UNROLL for (int tap = 0; tap < TAPS; tap += 2) {
                const __m512i one = held(_mm512_loadu_si512(a + tap * LANES));
                const __m512i other = _mm512_loadu_si512(b + tap * LANES);
                add(_mm512_unpacklo_epi16(one, other), pair, at<PLACE>(sum, tap));
                if (tap + 1 < TAPS)
                    add(_mm512_unpackhi_epi16(one, other), pair, at<PLACE>(sum, tap + 1));
            }
        }
    }

private:
    template <int PLACE>
    static vec& at(vec (&sum)[4][4], int tap) {
        return sum[PLACE / 2 + tap / 3][PLACE % 2 + tap % 3];
    }
    static void add(__m512i filters, __m512bh gradients, vec& sum) {
        sum = (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)filters, gradients);
    }
};
#endif

}  // namespace hilum
