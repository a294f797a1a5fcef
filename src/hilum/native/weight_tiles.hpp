// The weight gradient's products by matrix tiles.
#pragma once

#include "pairs.hpp"
#include "tiles.hpp"

#if MATRIX_TILES
namespace hilum::tiles {

// What a strip adds to the gradient of the weights: for each tap the product of gradients, a channel
// a line, and the pixels that the tap sees, in pairs. Few columns of a few rows at a time, so that
// both stay in the fastest cache.
class WeightSums {
public:
    explicit WeightSums(const Block& s)
        : s(s),
          gradients((size_t)LINES * s.out * DEPTH),
          pixels((size_t)(LINES + 2) * 2 * PAIRS * 2 * s.in) {}

    size_t size() const { return (size_t)s.in * s.out * TAPS; }
    // The place of a number of sums[out / 32][in / 32][TAPS][2][2][16][16].
    size_t place(int out, int in, int tap) const {
        const size_t block = (size_t)out / DEPTH * (s.in / DEPTH) + in / DEPTH;
        const int v = in % 8 / 4, lane = in % DEPTH / 8 * 4 + in % 4;  // as pairs are interleaved
        return (((block * TAPS + tap) * 2 + out % DEPTH / SIDE) * 2 + v) * SUMS +
               out % SIDE * SIDE + lane;
    }

    // Adds pooled rows from `begin` to `end` of a film.
    void add(const bf16* x, const bf16* dy, const uint8_t* winners, int film, int begin, int end,
             float* sums) const {
        for (int row = begin; row < end; row += LINES / 2)
            for (int column = 0; column < s.columns; column += SIDE) {
                const int rows = std::min(LINES / 2, end - row);
                for (int i = 0; i < rows; i++) turn(dy, winners, film, row + i, column, i);
                for (int i = 0; i < 2 * rows + 2; i++)
                    pair(x + s.input(film, 2 * row + i, 0), 2 * column, i);
                for (int out = 0; out < s.out; out += DEPTH)
                    for (int in = 0; in < s.in; in += DEPTH)
                        for (int tap : {0, 2, 3, 5, 6, 8, 1, 4, 7})  // of even pairs, of odd ones
                            multiply(tap, out, in, 2 * rows, sums + place(out, in, tap));
            }
    }

private:
    // Gradients of 16 windows of a pooled row as two lines of tiles: each channel's, window by
    // window, at the place that won.
    void turn(const bf16* dy, const uint8_t* winners, int film, int row, int column,
              int index) const {
        const int width = std::min(SIDE, s.columns - column);
        const size_t at = s.pixel(film, row, column);
        for (int c = 0; c < s.out; c += SIDE) {
            __m512i v[SIDE];  // a window each, and then a channel each
            UNROLL for (int j = 0; j < SIDE; j++) {
                v[j] = _mm512_set1_epi32(DEAD);
                if (j < width) {
                    const size_t from = at + (size_t)j * s.out + c;
                    v[j] = _mm512_or_si512((__m512i)hilum::load(dy + from),
                                           (__m512i)load_places(winners + from));
                }
            }
            transpose(v);
            bf16* top = gradients + (size_t)2 * index * s.out * DEPTH + c * DEPTH;
            for (int j = 0; j < SIDE; j++, top += DEPTH) {
                const __m512i won = _mm512_and_si512(v[j], _mm512_set1_epi32(7));
                _mm512_storeu_si512(top, placed(v[j], won, 0));
                _mm512_storeu_si512(top + (size_t)s.out * DEPTH, placed(v[j], won, 2));
            }
        }
    }
    static __m512i placed(__m512i v, __m512i won, int left) {
        const __mmask16 first = _mm512_cmpeq_epi32_mask(won, _mm512_set1_epi32(left));
        const __mmask16 second = _mm512_cmpeq_epi32_mask(won, _mm512_set1_epi32(left + 1));
        const __m512i high = _mm512_maskz_and_epi32(second, v, _mm512_set1_epi32(-65536));
        return _mm512_mask_srli_epi32(high, first, v, 16);
    }
    // Pixels of a line in pairs: of an even one and the next, and of an odd one and the next.
    void pair(const bf16* line, int column, int index) const {
        for (int k = 0; k < s.in; k += DEPTH) {
            const auto pixel = [&](int i) {
                return column + i < s.seen
                           ? _mm512_loadu_si512(line + (size_t)(column + i) * s.in + k)
                           : _mm512_setzero_si512();
            };
            bf16 *even = pixels + at(index, 0) + 2 * k, *odd = pixels + at(index, 1) + 2 * k;
            __m512i a = pixel(0);
            for (int i = 0; i < PAIRS; i++, even += 2 * s.in, odd += 2 * s.in) {
                const __m512i b = pixel(2 * i + 1), next = pixel(2 * i + 2);
                _mm512_storeu_si512(even, _mm512_unpacklo_epi16(a, b));
                _mm512_storeu_si512(even + DEPTH, _mm512_unpackhi_epi16(a, b));
                _mm512_storeu_si512(odd, _mm512_unpacklo_epi16(b, next));
                _mm512_storeu_si512(odd + DEPTH, _mm512_unpackhi_epi16(b, next));
                a = next;
            }
        }
    }
    void multiply(int tap, int out, int in, int lines, float* sums) const {
        const size_t apart = (size_t)4 * s.in;
        const int down = tap / 3, across = tap % 3;
        const bf16* gradient = gradients + (size_t)out * DEPTH;
        const bf16* pixel = pixels + at(down, across % 2) + (across / 2) * 2 * s.in + 2 * in;
        using S = Sums<2, 2>;
        S::load(sums);
        for (int i = 0; i < lines; i++, gradient += (size_t)s.out * DEPTH, pixel += at(1, 0)) {
            S::load_left(gradient, PART, 64);
            S::load_right(pixel, DEPTH, apart);
            S::multiply();
        }
        S::store(sums);
    }
    size_t at(int line, int odd) const { return (size_t)(2 * line + odd) * PAIRS * 2 * s.in; }

    static constexpr int LINES = 8;         // of gradients
    static constexpr int PAIRS = SIDE + 1;  // of pixels that 16 windows see
    const Block& s;
    const Buffer<bf16> gradients, pixels;  // [LINES][out][32], [LINES + 2][2][PAIRS][2 in]
};

}  // namespace hilum::tiles
#endif
