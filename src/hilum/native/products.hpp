// Products of matrices in float.
#pragma once

#include <array>
#include <utility>

#include "layers.hpp"

namespace hilum {

// c[COUNT][columns] (+)= a[COUNT][depth] . b[depth][columns]. The rows of a lie `apart`; TURNED: its
// columns do. b comes in strips of WIDTH vectors; how far its lines and its strips lie apart is said.
template <int WIDTH, bool TURNED, int COUNT>
void product(const float* a, size_t apart, const float* b, size_t line, size_t strip, float* c,
             int columns, int depth, bool add) {
    for (int column = 0; column < columns; column += WIDTH * LANES, b += strip) {
        vec sum[COUNT][WIDTH] = {};
        for (int k = 0; k < depth; k++) {
            vec right[WIDTH];
            UNROLL for (int v = 0; v < WIDTH; v++) right[v] = load(b + k * line + v * LANES);
            UNROLL for (int r = 0; r < COUNT; r++) {
                const vec left = broadcast(TURNED ? a[k * apart + r] : a[r * apart + k]);
                UNROLL for (int v = 0; v < WIDTH; v++) sum[r][v] += left * right[v];
            }
        }
        UNROLL for (int r = 0; r < COUNT; r++)
            UNROLL for (int v = 0; v < WIDTH; v++) {
                float* to = c + (size_t)r * columns + column + v * LANES;
                store(to, add ? load(to) + sum[r][v] : sum[r][v]);
            }
    }
}
using Product = void (*)(const float*, size_t, const float*, size_t, size_t, float*, int, int,
                         bool);
template <int WIDTH, bool TURNED, int... I>
constexpr std::array<Product, sizeof...(I)> products(std::integer_sequence<int, I...>) {
    return {product<WIDTH, TURNED, I + 1>...};
}
template <int WIDTH, bool TURNED, int MOST>  // by COUNT, less one
constexpr auto PRODUCT = products<WIDTH, TURNED>(std::make_integer_sequence<int, MOST>());

constexpr int LINE = 16;               // columns come in multiples of this
constexpr int WIDTH = LINE / LANES;    // vectors of them
constexpr int ROWS = AVX512 ? 14 : 6;  // rows multiplied at a time: they fill the registers

// c[rows][columns] (+)= a[rows][depth] . b[depth][columns]; TURNED: a[depth][rows].
template <bool TURNED = false>
void multiply(const float* a, const float* b, float* c, int rows, int columns, int depth,
              bool add = false) {
    for (int row = 0; row < rows; row += ROWS)
        PRODUCT<WIDTH, TURNED, ROWS>[std::min(ROWS, rows - row) - 1](
            a + (TURNED ? row : (size_t)row * depth), TURNED ? rows : depth, b, columns, LINE,
            c + (size_t)row * columns, columns, depth, add);
}

}  // namespace hilum
