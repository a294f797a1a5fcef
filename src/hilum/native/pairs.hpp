// The weight gradient's products, two winners at a time, in bfloat16.
#pragma once

#include "layers.hpp"

#ifdef __AVX512BF16__
namespace hilum {

// Rows to columns.
inline void transpose(__m512i (&v)[16]) {
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int k = 0; k < 2; k++) {
            v[i + 2 * k] = _mm512_unpacklo_epi64(t[i + k], t[i + k + 2]);
            v[i + 2 * k + 1] = _mm512_unpackhi_epi64(t[i + k], t[i + k + 2]);
        }
    for (int step = 0; step < 2; step++) {  // quarters, over four rows and then over eight
        __m512i(&from)[16] = step ? t : v, (&to)[16] = step ? v : t;
        const int apart = step ? 8 : 4;
        UNROLL for (int i = 0; i < 16; i++) {
            if (i & apart) continue;
            to[i] = _mm512_shuffle_i32x4(from[i], from[i + apart], 0x88);
            to[i + apart] = _mm512_shuffle_i32x4(from[i], from[i + apart], 0xdd);
        }
    }
}

// Each lane of a vector multiplies a pair of numbers, here one of each of two winners of a filter,
// and adds both. To interleave two vectors of 32 channels puts these into an order of its own.
class Pairs {
public:
    static constexpr int ROWS = 3, COLUMNS = LANES;  // windows of a segment
    static constexpr int FILTERS = LANES;            // listed together
    static constexpr int CHANNELS = 2 * LANES;       // input channels of a sum

    static int channel(int v, int lane) { return lane / 4 * 8 + v * 4 + lane % 4; }

    explicit Pairs(const Block& s)
        : s(s), line((size_t)s.width * s.in), listed((size_t)FILTERS * CAPACITY) {
        for (int i = 0; i < 2 * ROWS * PIXELS; i++)
            place[i] = i / PIXELS * line + i % PIXELS * s.in;
    }

    // A winner is listed as its gradient's bits, and below them as a pixel of the segment's input.
    void list(const bf16* dy, const uint8_t* winners, int height, int width) {
        const size_t next = (size_t)s.columns * s.out;
        const int out = s.out;
        const __m512i dead = _mm512_set1_epi32(NOBODY);
        const __m512i pixel =  // of a place in a window
            _mm512_mask_blend_epi32(0xf, dead, _mm512_set4_epi32(PIXELS + 1, PIXELS, 1, 0));
        for (int c = 0; c < FILTERS; c++) end[c] = listed + c * CAPACITY;
        for (int i = 0; i < height; i++, dy += next, winners += next) {
            __m512i v[LANES];  // a window each, and then a filter each
            UNROLL for (int j = 0; j < COLUMNS; j++) {
                v[j] = dead;
                if (j < width) {
                    const __m512i won = (__m512i)load_places(winners + j * out);
                    const __m512i corner = _mm512_set1_epi32(2 * (i * PIXELS + j));
                    const __m512i where =
                        _mm512_add_epi32(_mm512_permutexvar_epi32(won, pixel), corner);
                    v[j] = _mm512_or_si512((__m512i)load(dy + j * out), where);
                }
            }
            transpose(v);
            UNROLL for (int c = 0; c < FILTERS; c++) {
                const __mmask16 alive = _mm512_testn_epi32_mask(v[c], dead);
                _mm512_storeu_si512(end[c], _mm512_maskz_compress_epi32(alive, v[c]));
                end[c] += __builtin_popcount(alive);
            }
        }
    }

    void look_at(const bf16* x, int, int) { seen = x; }

    // Not inlined, so that the sums keep to registers.
    __attribute__((noinline)) void gather(int c, float* sums) {
        const size_t in = s.in, line = this->line;
        uint32_t* last = end[c];
        if ((last - listed) % 2) {  // an even number: the last once more, times nought
            *last = last[-1] & 0xffff;
            last++;
        }
        vec sum[TAPS][2];
        UNROLL for (int t = 0; t < 2 * TAPS; t++) sum[t / 2][t % 2] = load(sums + t * LANES);
        for (const uint32_t* e = listed + c * CAPACITY; e < last; e += 2) {
            const uint32_t both = e[0] >> 16 | (e[1] & 0xffff0000);
            const __m512bh pair = (__m512bh)_mm512_set1_epi32((int)both);
            const bf16 *a = seen + place[e[0] & 0xffff], *b = seen + place[e[1] & 0xffff];
            UNROLL for (int tap = 0; tap < TAPS; tap++) {
                const size_t at = tap / 3 * line + tap % 3 * in;
                const __m512i one = held(_mm512_loadu_si512(a + at));
                const __m512i other = held(_mm512_loadu_si512(b + at));
                add(_mm512_unpacklo_epi16(one, other), pair, sum[tap][0]);
                add(_mm512_unpackhi_epi16(one, other), pair, sum[tap][1]);
            }
        }
        UNROLL for (int t = 0; t < 2 * TAPS; t++) store(sums + t * LANES, sum[t / 2][t % 2]);
    }

private:
    static constexpr int PIXELS = 2 * COLUMNS;  // of a line, in which a winner may lie
    static constexpr int NOBODY = 0x8000;       // a bit that no pixel has
    // A list is written in whole vectors, so it may be overrun by one.
    static constexpr int CAPACITY = ROWS * COLUMNS + LANES;

    static void add(__m512i pairs, __m512bh gradients, vec& sum) {
        sum = held((vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pairs, gradients));
    }

    const Block& s;
    const size_t line;  // of the input
    const bf16* seen;
    int32_t place[2 * ROWS * PIXELS];  // of a pixel, from the segment's corner
    const Buffer<uint32_t> listed;
    uint32_t* end[FILTERS];
};

}  // namespace hilum
#endif
