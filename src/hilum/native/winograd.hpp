// Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016): 36 products where the plain
// sum has 144. Its transforms.
#pragma once

#include "products.hpp"

namespace hilum {

constexpr int TILE = 6;                 // input pixels a side of a tile
constexpr int POINTS = TILE * TILE;
constexpr int TILES = AVX512 ? 12 : 6;  // tiles multiplied at a time: they fill the registers
constexpr int OUT_BLOCK = 2 * LANES;    // output channels multiplied at a time

// Input that comes next: asked for while the points of a row are multiplied, some for each.
struct Ahead {
    const void* begin;
    size_t bytes;
    void prefetch(int point) const { hilum::prefetch(begin, bytes, point, TILE); }
};

inline void transform_input(const vec (&d)[TILE], vec (&t)[TILE]) {
    const vec even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
    const vec even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = even2 + odd2;
    t[4] = even2 - odd2;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

inline void transform_output(const vec (&m)[TILE], vec (&y)[4]) {
    const vec even = m[1] + m[2], odd = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
    y[0] = m[0] + even + even2;
    y[1] = odd + 2 * odd2;
    y[2] = even + 4 * even2;
    y[3] = odd + 8 * odd2 + m[5];
}

// One dimension of a filter's transform.
inline void transform_filter(const vec (&g)[3], vec (&t)[TILE]) {
    const vec ends = (g[0] + g[2]) * (1.f / 6), middle = g[1] * (1.f / 6);
    const vec ends2 = g[0] * (1.f / 24) + g[2] * (1.f / 6), middle2 = g[1] * (1.f / 12);
    t[0] = g[0] * (1.f / 4);
    t[1] = -ends - middle;
    t[2] = middle - ends;
    t[3] = ends2 + middle2;
    t[4] = ends2 - middle2;
    t[5] = g[2];
}

// Applies a transform of one dimension to the columns and then the rows of a square: from(i, j)
// gives its values, to(i, j, value) takes what comes out.
template <auto transform, int FROM, int TO, class From, class To>
inline __attribute__((always_inline)) void both_ways(From from, To to) {
    vec half[TO][FROM];
    UNROLL for (int j = 0; j < FROM; j++) {
        vec column[FROM], changed[TO];
        UNROLL for (int i = 0; i < FROM; i++) column[i] = from(i, j);
        transform(column, changed);
        UNROLL for (int i = 0; i < TO; i++) half[i][j] = changed[i];
    }
    UNROLL for (int i = 0; i < TO; i++) {
        vec row[TO];
        transform(half[i], row);
        UNROLL for (int j = 0; j < TO; j++) to(i, j, row[j]);
    }
}

// weight[out][in][TAPS] to filters[POINTS][out / OUT_BLOCK][in][OUT_BLOCK].
inline void transform_filters(const float* weight, float* filters, int in, int out) {
    for (int o = 0; o < out; o += LANES)
        for (int i = 0; i < in; i++) {
            vec g[3][3];
            for (int lane = 0; lane < LANES; lane++)
                for (int tap = 0; tap < TAPS; tap++)
                    g[tap / 3][tap % 3][lane] = weight[((size_t)(o + lane) * in + i) * TAPS + tap];
            float* to = filters + ((size_t)o / OUT_BLOCK * in + i) * OUT_BLOCK + o % OUT_BLOCK;
            both_ways<transform_filter, 3, TILE>(
                [&](int a, int b) { return g[a][b]; },
                [&](int a, int b, vec v) { store(to + (size_t)(a * TILE + b) * in * out, v); });
        }
}

}  // namespace hilum
