// Forward convolution by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016):
// 36 products where the plain sum has 144. A tile of 4x4 outputs is four pooling windows, so bias,
// ReLU and pooling happen in registers on the way out.
#pragma once

#include <array>
#include <utility>

#include "layers.hpp"

namespace hilum {

constexpr int TILE = 6;                 // input pixels a side of a tile
constexpr int POINTS = TILE * TILE;
constexpr int TILES = AVX512 ? 12 : 6;  // tiles multiplied at a time: they fill the registers
constexpr int STRETCH = 4 * TILES + 2;  // input columns under them
constexpr int OUT_BLOCK = 2 * LANES;    // output channels multiplied at a time

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

struct Workspace {  // of one thread
    explicit Workspace(const Shape& s)
        : half((size_t)TILE * STRETCH * s.in),
          tiles((size_t)TILE * TILES * s.in),
          products((size_t)TILE * TILES * s.out),
          sums((size_t)TILE * 4 * TILES * s.out) {}
    const Buffer<float> half;      // [TILE][STRETCH][in]: the columns transformed
    const Buffer<float> tiles;     // [TILE][count][in]: one row of points
    const Buffer<float> products;  // [TILE][count][out]
    const Buffer<float> sums;      // [TILE][4 TILES][out]: the rows transformed back
};

// `count` tiles of one row of tiles, from the tile `first` on.
template <class T>
void forward_tiles(const T* x, const float* filters, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int film, int down, int first, int count,
                   const Workspace& work) {
    // Beyond the edge the last pixel is read again; only outputs that nobody keeps see it.
    const T* line[TILE];
    for (int i = 0; i < TILE; i++)
        line[i] = x + s.input(film, std::min(4 * down + i, s.height - 1), 0);
    for (int column = 0; column < 4 * count + 2; column++) {
        const size_t from = (size_t)std::min(4 * first + column, s.width - 1) * s.in;
        for (int k = 0; k < s.in; k += LANES) {
            vec d[TILE], t[TILE];
            UNROLL for (int i = 0; i < TILE; i++) d[i] = load(line[i] + from + k);
            transform_input(d, t);
            UNROLL for (int i = 0; i < TILE; i++)
                store(work.half + ((size_t)i * STRETCH + column) * s.in + k, t[i]);
        }
    }
    // The next tiles lie to the right, or at the start of the next row of tiles.
    const int next = 4 * (first + count) + 2;
    const bool right = next < s.width - 2;
    const int ahead_row = 4 * down + (right ? 0 : 4), ahead_column = right ? next : 0;
    const size_t ahead = (size_t)std::min(4 * TILES, s.width - ahead_column) * s.in * sizeof(T);
    for (int i = 0; i < TILE; i++) {
        for (int tile = 0; tile < count; tile++)
            for (int k = 0; k < s.in; k += LANES) {
                const float* from = work.half + ((size_t)i * STRETCH + 4 * tile) * s.in + k;
                vec d[TILE], t[TILE];
                UNROLL for (int j = 0; j < TILE; j++) d[j] = load(from + (size_t)j * s.in);
                transform_input(d, t);
                UNROLL for (int j = 0; j < TILE; j++)
                    store(work.tiles + ((size_t)j * count + tile) * s.in + k, t[j]);
            }
        for (int j = 0; j < TILE; j++) {
            if (ahead_row + i < s.height)
                prefetch(x + s.input(film, ahead_row + i, ahead_column), ahead, j, TILE);
            PRODUCT<2, false, TILES>[count - 1](
                work.tiles + (size_t)j * count * s.in, s.in,
                filters + (size_t)(i * TILE + j) * s.in * s.out, OUT_BLOCK, s.in * OUT_BLOCK,
                work.products + (size_t)j * count * s.out, s.out, s.in, false);
        }
        for (int tile = 0; tile < count; tile++)
            for (int k = 0; k < s.out; k += LANES) {
                vec m[TILE], part[4];
                UNROLL for (int j = 0; j < TILE; j++)
                    m[j] = load(work.products + ((size_t)j * count + tile) * s.out + k);
                transform_output(m, part);
                UNROLL for (int j = 0; j < 4; j++)
                    store(work.sums + ((size_t)(i * TILES + tile) * 4 + j) * s.out + k, part[j]);
            }
    }
    const size_t step = (size_t)4 * TILES * s.out;
    for (int column = 2 * first; column < std::min(2 * (first + count), s.columns); column++)
        for (int k = 0; k < s.out; k += LANES) {
            const float* from = work.sums + (size_t)2 * (column - 2 * first) * s.out + k;
            const vec shift = load(bias + k);
            vec m[TILE], left[4], right[4];
            UNROLL for (int i = 0; i < TILE; i++) m[i] = load(from + i * step);
            transform_output(m, left);
            UNROLL for (int i = 0; i < TILE; i++) m[i] = load(from + i * step + s.out);
            transform_output(m, right);
            UNROLL for (int i = 0; i < 2; i++) {
                if (2 * down + i >= s.rows) continue;
                const size_t at = s.pixel(film, 2 * down + i, column) + k;
                keep(relu_pool(left[2 * i] + shift, right[2 * i] + shift, left[2 * i + 1] + shift,
                               right[2 * i + 1] + shift),
                     y + at, winners + at);
            }
        }
}

template <class T>
void block_forward(const T* x, const float* weight, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int threads) {
    const int downs = (s.rows + 1) / 2, across = (s.columns + 1) / 2;
    const int groups = (across + TILES - 1) / TILES;
    Buffer<float> filters((size_t)POINTS * s.in * s.out);
    transform_filters(weight, filters, s.in, s.out);
    Pool::run(s.films * downs, threads, [&](Turn& turn) {
        const Workspace work(s);
        do
            for (int group = 0; group < groups; group++) {
                const int first = across * group / groups;
                const int count = across * (group + 1) / groups - first;
                forward_tiles(x, filters, bias, y, winners, s, turn.piece / downs,
                              turn.piece % downs, first, count, work);
            }
        while (turn.next());
    });
}

}  // namespace hilum
