// The first block: with one input channel nothing but the pooled map is worth writing.
#pragma once

#include "layers.hpp"

namespace hilum {

template <class T>
void first_forward(const float* x, const float* weight, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int threads) {
    Buffer<float> taps((size_t)TAPS * s.out);
    for (int tap = 0; tap < TAPS; tap++)
        for (int c = 0; c < s.out; c++) taps[tap * s.out + c] = weight[c * TAPS + tap];
    Pool::run(s.films * s.rows, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / s.rows, row = turn.piece % s.rows;
            for (int block = 0; block < s.out; block += WIDE * LANES) {
                vec filter[TAPS][WIDE], shift[WIDE];
                UNROLL for (int v = 0; v < WIDE; v++) {
                    shift[v] = load(bias + block + v * LANES);
                    UNROLL for (int tap = 0; tap < TAPS; tap++)
                        filter[tap][v] = load(taps + tap * s.out + block + v * LANES);
                }
                const float* seen = x + s.input(film, 2 * row, 0);
                size_t out = s.pixel(film, row, 0) + block;
                for (int column = 0; column < s.columns; column++, seen += 2, out += s.out) {
                    vec sum[4][WIDE];
                    UNROLL for (int place = 0; place < 4; place++)
                        UNROLL for (int v = 0; v < WIDE; v++) sum[place][v] = shift[v];
                    UNROLL for (int i = 0; i < 4; i++)
                        UNROLL for (int j = 0; j < 4; j++) {
                            const vec pixel = broadcast(seen[i * s.width + j]);
                            UNROLL for (int place = 0; place < 4; place++) {
                                const int dy = i - place / 2, dx = j - place % 2;
                                if (dy < 0 || dy > 2 || dx < 0 || dx > 2) continue;
                                UNROLL for (int v = 0; v < WIDE; v++)
                                    sum[place][v] += pixel * filter[dy * 3 + dx][v];
                            }
                        }
                    UNROLL for (int v = 0; v < WIDE; v++)
                        keep(relu_pool(sum[0][v], sum[1][v], sum[2][v], sum[3][v]),
                             y + out + v * LANES, winners + out + v * LANES);
                }
            }
        } while (turn.next());
    });
}

// Adds gradient times the 3x3 pixels that each channel's winner has seen.
inline void first_gradient(const float* corner, int width, vec gradient, ivec winner,
                           vec (&sum)[TAPS]) {
#if AVX512
    __m512 pixels = _mm512_castps128_ps512(_mm_loadu_ps(corner));  // all 4x4 in one register
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + width), 1);
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + 2 * width), 2);
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + 3 * width), 3);
    const ivec first = (winner >> 1) * 4 + (winner & 1);
    UNROLL for (int tap = 0; tap < TAPS; tap++) {
        const ivec which = first + (tap / 3 * 4 + tap % 3);
        sum[tap] += gradient * (vec)_mm512_permutexvar_ps((__m512i)which, pixels);
    }
#else
    UNROLL for (int place = 0; place < 4; place++) {
        const vec part = winner == place ? gradient : vec{};
        UNROLL for (int tap = 0; tap < TAPS; tap++) {
            const int row = tap / 3 + place / 2, column = tap % 3 + place % 2;
            sum[tap] += part * broadcast(corner[row * width + column]);
        }
    }
#endif
}

template <class T>
void first_backward(const float* x, const T* dy, const uint8_t* winners, float* dweight,
                    float* dbias, const Block& s, int threads) {
    const size_t part = (size_t)(TAPS + 1) * s.out;
    const int pieces = s.films * s.strips;
    Buffer<float> partial(part * pieces);
    Pool::run(pieces, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            for (int block = 0; block < s.out; block += WIDE * LANES) {
                vec sum[WIDE][TAPS] = {}, bias[WIDE] = {};
                for (int row = s.first_row(strip); row < s.first_row(strip + 1); row++) {
                    const float* seen = x + s.input(film, 2 * row, 0);
                    size_t at = s.pixel(film, row, 0) + block;
                    for (int column = 0; column < s.columns; column++, seen += 2, at += s.out)
                        UNROLL for (int v = 0; v < WIDE; v++) {
                            const ivec winner = load_places(winners + at + v * LANES);
                            const vec all = load(dy + at + v * LANES);
                            const vec gradient = winner == DEAD ? vec{} : all;
                            bias[v] += gradient;
                            first_gradient(seen, s.width, gradient, winner, sum[v]);
                        }
                }
                float* mine = partial + part * turn.piece + block;
                UNROLL for (int v = 0; v < WIDE; v++, mine += LANES) {
                    UNROLL for (int tap = 0; tap < TAPS; tap++)
                        store(mine + tap * s.out, sum[v][tap]);
                    store(mine + TAPS * s.out, bias[v]);
                }
            }
        } while (turn.next());
    });
    for (int c = 0; c < s.out; c++)
        for (int tap = 0; tap <= TAPS; tap++) {
            float sum = 0;
            for (int i = 0; i < pieces; i++) sum += partial[part * i + tap * s.out + c];
            (tap < TAPS ? dweight[c * TAPS + tap] : dbias[c]) = sum;
        }
}

}  // namespace hilum
