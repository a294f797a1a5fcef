// Forward convolution by minimal filtering. A tile of 4x4 outputs is four pooling windows, so bias,
// ReLU and pooling happen in registers on the way out.
#pragma once

#include <type_traits>

#include "block_tiles.hpp"
#include "integers.hpp"

namespace hilum {

constexpr int STRETCH = 4 * TILES + 2;  // input columns under the tiles multiplied at a time

// The filters, and what multiplies tiles by them: in float (below) or in integers.
class InFloats {
public:
    InFloats(const float* weight, const Shape& s)
        : in(s.in), out(s.out), filters((size_t)POINTS * s.in * s.out) {
        transform_filters(weight, filters, in, out);
    }

    class Row {
    public:
        Row(const InFloats& of, float* products)
            : f(of), tiles((size_t)TILE * TILES * of.in), products(products) {}

        static constexpr int WIDTH = 1;  // vectors of channels that are put at a time

        struct Seen {
            void operator()(int, vec) {}
        };
        struct Put {
            void operator()(int, size_t at, const vec* v) const { store(to + at, *v); }
            float* to;
        };
        Put begin(int i, const Seen&) {
            row = i;
            return {tiles};
        }
        void multiply(int count, const Ahead& ahead) const {
            for (int j = 0; j < TILE; j++) {
                ahead.prefetch(j);
                PRODUCT<2, false, TILES>[count - 1](
                    tiles + (size_t)j * count * f.in, f.in,
                    f.filters + (size_t)(row * TILE + j) * f.in * f.out, OUT_BLOCK, f.in * OUT_BLOCK,
                    products + (size_t)j * count * f.out, f.out, f.in, false);
            }
        }
        vec factor(int, int) const { return vec{}; }
        vec product(int j, int tile, int channel, int count, vec) const {
            return load(products + ((size_t)j * count + tile) * f.out + channel);
        }

    private:
        const InFloats& f;
        const Buffer<float> tiles;  // [TILE][count][in]
        float* const products;      // [TILE][count][out]
        int row;
    };

private:
    const int in, out;
    const Buffer<float> filters;  // [POINTS][out / OUT_BLOCK][in][OUT_BLOCK]
};

template <class Filters>
struct Workspace {  // of one thread
    Workspace(const Shape& s, const Filters& filters)
        : half((size_t)TILE * STRETCH * s.in),
          products((size_t)TILE * TILES * s.out),
          sums((size_t)TILE * 4 * TILES * s.out),
          row(filters, products) {}
    const Buffer<float> half;      // [TILE][STRETCH][in]: the columns transformed
    const Buffer<float> products;  // of one row of points, floats or integers
    const Buffer<float> sums;      // [TILE][4 TILES][out]: the rows transformed back
    typename Filters::Row row;
};

// `count` tiles of one row of tiles, from the tile `first` on.
template <class T, class Filters>
void forward_tiles(const T* x, const float* bias, T* y, uint8_t* winners, const Block& s, int film,
                   int down, int first, int count, Workspace<Filters>& work) {
    constexpr int WIDTH = Filters::Row::WIDTH;
    const int in = s.in, out = s.out;  // which no store changes
    float *const half = work.half, *const sums = work.sums;
    auto& row = work.row;
    // Beyond the edge the last pixel is read again; only outputs that nobody keeps see it.
    const T* line[TILE];
    for (int i = 0; i < TILE; i++)
        line[i] = x + s.input(film, std::min(4 * down + i, s.height - 1), 0);
    typename Filters::Row::Seen seen;
    for (int column = 0; column < 4 * count + 2; column++) {
        const size_t from = (size_t)std::min(4 * first + column, s.width - 1) * in;
        for (int k = 0; k < in; k += LANES) {
            vec d[TILE], t[TILE];
            UNROLL for (int i = 0; i < TILE; i++) d[i] = load(line[i] + from + k);
            transform_input(d, t);
            UNROLL for (int i = 0; i < TILE; i++) {
                store(half + ((size_t)i * STRETCH + column) * in + k, t[i]);
                seen(i, t[i]);
            }
        }
    }
    // The next tiles lie to the right, or at the start of the next row of tiles.
    const int next = 4 * (first + count) + 2;
    const bool right = next < s.width - 2;
    const int ahead_row = 4 * down + (right ? 0 : 4), ahead_column = right ? next : 0;
    const size_t ahead = (size_t)std::min(4 * TILES, s.width - ahead_column) * in * sizeof(T);
    for (int i = 0; i < TILE; i++) {
        const auto put = row.begin(i, seen);
        for (int tile = 0; tile < count; tile++)
            for (int k = 0; k < in; k += WIDTH * LANES) {
                vec t[TILE][WIDTH];
                UNROLL for (int v = 0; v < WIDTH; v++) {
                    const float* from = half + ((size_t)i * STRETCH + 4 * tile) * in + k + v * LANES;
                    vec d[TILE], changed[TILE];
                    UNROLL for (int j = 0; j < TILE; j++) d[j] = held(load(from + (size_t)j * in));
                    transform_input(d, changed);
                    UNROLL for (int j = 0; j < TILE; j++) t[j][v] = changed[j];
                }
                UNROLL for (int j = 0; j < TILE; j++)
                    put(j, ((size_t)j * count + tile) * in + k, t[j]);
            }
        const bool inside = ahead_row + i < s.height;
        row.multiply(count, {x + (inside ? s.input(film, ahead_row + i, ahead_column) : 0),
                             inside ? ahead : 0});
        for (int k = 0; k < out; k += LANES) {
            vec factor[TILE];
            UNROLL for (int j = 0; j < TILE; j++) factor[j] = row.factor(j, k);
            for (int tile = 0; tile < count; tile++) {
                vec m[TILE], part[4];
                UNROLL for (int j = 0; j < TILE; j++)
                    m[j] = row.product(j, tile, k, count, factor[j]);
                transform_output(m, part);
                UNROLL for (int j = 0; j < 4; j++)
                    store(sums + ((size_t)(i * TILES + tile) * 4 + j) * out + k, part[j]);
            }
        }
    }
    const size_t step = (size_t)4 * TILES * out;
    for (int column = 2 * first; column < std::min(2 * (first + count), s.columns); column++)
        for (int k = 0; k < out; k += LANES) {
            const float* from = sums + (size_t)2 * (column - 2 * first) * out + k;
            const vec shift = load(bias + k);
            vec m[TILE], left[4], right[4];
            UNROLL for (int i = 0; i < TILE; i++) m[i] = held(load(from + i * step));
            transform_output(m, left);
            UNROLL for (int i = 0; i < TILE; i++) m[i] = held(load(from + i * step + out));
            transform_output(m, right);
            UNROLL for (int i = 0; i < 2; i++) {
                if (2 * down + i >= s.rows) continue;
                const size_t at = s.pixel(film, 2 * down + i, column) + k;
                keep(relu_pool(left[2 * i], right[2 * i], left[2 * i + 1], right[2 * i + 1], shift),
                     y + at, winners + at);
            }
        }
}

template <class Filters, class T>
void forward_by(const T* x, const float* weight, const float* bias, T* y, uint8_t* winners,
                const Block& s, int threads) {
    const int downs = (s.rows + 1) / 2, across = (s.columns + 1) / 2;
    const int groups = (across + TILES - 1) / TILES;
    const Filters filters(weight, s);
    Pool::run(s.films * downs, threads, [&](Turn& turn) {
        Workspace<Filters> work(s, filters);
        do
            for (int group = 0; group < groups; group++) {
                const int first = across * group / groups;
                const int count = across * (group + 1) / groups - first;
                forward_tiles(x, bias, y, winners, s, turn.piece / downs, turn.piece % downs, first,
                              count, work);
            }
        while (turn.next());
    });
}

template <class T>
void block_forward(const T* x, const float* weight, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int threads) {
#if MATRIX_TILES
    if constexpr (std::is_same_v<T, bf16>)
        if (tiles::allowed())
            return tiles::block_forward(x, weight, bias, y, winners, s, threads);
#endif
#ifdef __AVX512VNNI__
    if constexpr (std::is_same_v<T, bf16>)
        if (s.in <= InIntegers::MOST)
            return forward_by<InIntegers>(x, weight, bias, y, winners, s, threads);
#endif
    forward_by<InFloats>(x, weight, bias, y, winners, s, threads);
}

}  // namespace hilum
