// Resizing grey films by a triangle filter, to the bit as Pillow does it (`Image.resize`, BILINEAR,
// one axis at a time): weights in double, rounded to 22 bits behind the point; sums in whole numbers,
// rounded to a byte after each axis.
#pragma once

#include <cmath>
#include <vector>

#include "layers.hpp"

namespace hilum {

constexpr int BITS = 22;
constexpr int SQUARE = 16;  // bytes a side of what is transposed at a time

// A product that is not fused with the sum behind it, which would round otherwise.
inline double times(double a, double b) {
    volatile double product = a * b;
    return product;
}

struct Weights {  // of the pixels from `first[i]` on, `count[i]` of them, for each output i
    Weights(int in, int out) {
        const double scale = (double)in / out, support = std::max(scale, 1.0);
        for (int i = 0; i < out; i++) {
            const double centre = times(i + 0.5, scale);
            const int begin = std::max((int)(centre - support + 0.5), 0);
            const int end = std::min((int)(centre + support + 0.5), in);
            std::vector<double> plain(end - begin);
            values.reserve(values.size() + plain.size());
            double sum = 0;
            for (int k = 0; k < end - begin; k++) {
                const double away = times(k + begin - centre + 0.5, 1 / support);
                sum += plain[k] = std::max(1 - std::fabs(away), 0.0);
            }
            first.push_back(begin);
            count.push_back(end - begin);
            for (double weight : plain)
                values.push_back((int)(0.5 + times(sum ? weight / sum : weight, 1 << BITS)));
        }
    }
    std::vector<int> first, count, values;
};

// in[SQUARE] lines of bytes to out[SQUARE][SQUARE], columns becoming lines.
inline void transpose(const uint8_t* const* lines, uint8_t* out) {
    __m128i a[SQUARE], b[SQUARE];
    UNROLL for (int i = 0; i < SQUARE; i++) a[i] = _mm_loadu_si128((const __m128i*)lines[i]);
    for (int turn = 0; turn < 4; turn++) {
        UNROLL for (int i = 0; i < SQUARE / 2; i++) {
            b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + SQUARE / 2]);
            b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + SQUARE / 2]);
        }
        UNROLL for (int i = 0; i < SQUARE; i++) a[i] = b[i];
    }
    UNROLL for (int i = 0; i < SQUARE; i++) _mm_storeu_si128((__m128i*)(out + i * SQUARE), a[i]);
}

// film[height][width] to out[size][height]: the width becomes `size`, and lines become columns.
inline void resize_width(const uint8_t* film, uint8_t* out, int height, int width, int size) {
    const Weights weights(width, size);
    const int blocks = (width + SQUARE - 1) / SQUARE;
    Buffer<uint8_t> columns((size_t)blocks * SQUARE * SQUARE);  // of SQUARE lines: [column][line]
    for (int row = 0; row < height; row += SQUARE) {
        const int rows = std::min(SQUARE, height - row);
        for (int block = 0; block < blocks; block++) {
            const int column = block * SQUARE, wide = std::min(SQUARE, width - column);
            uint8_t edge[SQUARE][SQUARE] = {};
            const uint8_t* lines[SQUARE];
            for (int i = 0; i < SQUARE; i++) {
                lines[i] = film + (size_t)(row + std::min(i, rows - 1)) * width + column;
                if (wide < SQUARE) lines[i] = std::copy_n(lines[i], wide, edge[i]) - wide;
            }
            transpose(lines, columns + (size_t)column * SQUARE);
        }
        const int* weight = weights.values.data();
        for (int i = 0; i < size; i++) {
            const uint8_t* from = columns + (size_t)weights.first[i] * SQUARE;
            ivec sum[SQUARE / LANES];
            UNROLL for (auto& part : sum) part = ivec{} + (1 << (BITS - 1));
            for (int k = 0; k < weights.count[i]; k++, weight++, from += SQUARE)
                UNROLL for (int v = 0; v < SQUARE / LANES; v++)
                    sum[v] += *weight * load_places(from + v * LANES);
            uint8_t line[SQUARE];
            UNROLL for (int v = 0; v < SQUARE / LANES; v++)
                store_low(line + v * LANES, (sum[v] >> BITS) > 255 ? ivec{} + 255 : sum[v] >> BITS);
            std::copy_n(line, rows, out + (size_t)i * height + row);
        }
    }
}

// film[height][width] to out[size][size], its width first.
inline void resize(const uint8_t* film, uint8_t* out, int height, int width, int size) {
    Buffer<uint8_t> turned((size_t)size * height);
    resize_width(film, turned, height, width, size);
    resize_width(turned, out, size, height, size);
}

}  // namespace hilum
