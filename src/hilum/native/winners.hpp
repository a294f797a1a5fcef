// Backward convolution from the winners alone.
#pragma once

#include <type_traits>

#include "below.hpp"
#include "block_tiles.hpp"
#include "gather.hpp"
#include "pairs.hpp"
#include "scatter.hpp"

namespace hilum {

#ifdef __AVX512BF16__
template <class T>
using Products = std::conditional_t<std::is_same_v<T, bf16>, Pairs, Single<T>>;
template <class T>
using Scatter = std::conditional_t<std::is_same_v<T, bf16>, TwoByTwo, OneByOne<T>>;
#else
template <class T>
using Products = Single<T>;
template <class T>
using Scatter = OneByOne<T>;
#endif

// A strip's share, added to dweight[in / CHANNELS][out][TAPS][CHANNELS] in the lanes' own order.
template <class T>
void weight_gradient(const T* x, const T* dy, const uint8_t* winners, float* dweight,
                     const Block& s, int film, int begin, int end, Products<T>& products) {
    using P = Products<T>;
    for (int row = begin; row < end; row += P::ROWS)
        for (int column = 0; column < s.columns; column += P::COLUMNS) {
            const int height = std::min(P::ROWS, end - row);
            const int width = std::min(P::COLUMNS, s.columns - column);
            const bool right = column + width < s.columns;  // the next segment is there, else below
            const int ahead_row = 2 * row + (right ? 0 : 2 * height + 2);
            const int ahead_column = right ? 2 * (column + width) + 2 : 0;
            const int ahead_end = std::min(2 * row + 2 * height + 6, s.height);
            for (int first = 0; first < s.out; first += P::FILTERS) {
                const size_t pixel = s.pixel(film, row, column) + first;
                products.list(dy + pixel, winners + pixel, height, width);
                for (int block = 0; block < s.in; block += P::CHANNELS) {
                    products.look_at(x + s.input(film, 2 * row, 2 * column) + block, height, width);
                    for (int c = 0; c < P::FILTERS; c++) {
                        const int ahead = ahead_column + (first + c) % GROUP;
                        for (int i = ahead_row; ahead < s.width && i < ahead_end; i++)
                            prefetch(x + s.input(film, i, ahead) + block,
                                     P::CHANNELS * sizeof(T), 0, 1);
                        const size_t filter = (size_t)block * s.out + (first + c) * P::CHANNELS;
                        products.gather(c, dweight + filter * TAPS);
                    }
                }
            }
        }
}

// Lines 2 begin .. 2 end - 1 of the input's gradient, and those behind them if nothing follows.
// A 4x4 patch of sums walks along the windows; what it leaves on the next two lines is carried.
// filters[in / LANES][out][SIZE].
template <class T, class Strip>
void input_gradient(const typename Scatter<T>::Number* filters, const T* dy, const uint8_t* winners,
                    Strip& below, const Block& s, int film, int begin, int end, float* carry) {
    using S = Scatter<T>;
    const size_t line = (size_t)s.width * s.in;
    std::fill_n(carry, 2 * line, 0.0f);
    for (int row = std::max(begin - 1, 0); row < end; row++) {
        const size_t first = s.pixel(film, row, 0);
        T* out = row < begin ? nullptr : below.lines(2 * row);
        for (int k = 0; k < s.in; k += LANES) {
            vec sum[4][4] = {};
            const auto bring = [&](int column, int to) {
                const float* from = carry + (size_t)column * s.in + k;
                UNROLL for (int i = 0; i < 2; i++) sum[i][to] = load(from + i * line);
                UNROLL for (int i = 2; i < 4; i++) sum[i][to] = vec{};
            };
            const auto leave = [&](int column, int from) {
                const size_t at = (size_t)column * s.in + k;
                UNROLL for (int i = 0; i < 2; i++) {
                    if (out) store(out + i * line + at, sum[i][from]);
                    store(carry + i * line + at, sum[i + 2][from]);
                }
            };
            bring(0, 0), bring(1, 1);
            for (int column = 0; column < s.columns; column++) {
                bring(2 * column + 2, 2), bring(2 * column + 3, 3);
                for (int group = 0; group < s.out; group += GROUP) {
                    const size_t at = first + (size_t)column * s.out + group;
                    prefetch(dy + at + (size_t)s.columns * s.out, GROUP * sizeof(T), 0, 1);
                    prefetch(winners + at + (size_t)s.columns * s.out, GROUP, 0, 1);
                    const auto* mine = filters + ((size_t)k / LANES * s.out + group) * S::SIZE;
                    S::template add<0>(winners + at, dy + at, mine, sum);
                    S::template add<1>(winners + at, dy + at, mine, sum);
                    S::template add<2>(winners + at, dy + at, mine, sum);
                    S::template add<3>(winners + at, dy + at, mine, sum);
                }
                leave(2 * column, 0), leave(2 * column + 1, 1);
                UNROLL for (int i = 0; i < 4; i++) sum[i][0] = sum[i][2], sum[i][1] = sum[i][3];
            }
            leave(2 * s.columns, 0), leave(2 * s.columns + 1, 1);
            if (out && s.width > 2 * s.columns + 2)  // an odd last column has no window
                for (int i = 0; i < 2; i++) store(out + (i + 1) * line - s.in + k, vec{});
        }
        if (out) below.whole(2 * row, 2);
    }
    for (int i = 2 * s.rows; end == s.rows && i < s.height; i += 2) {
        const bool last = i > 2 * s.rows;  // an odd last line has no window
        const int count = last ? 1 : 2;
        T* out = below.lines(i);
        for (size_t k = 0; k < count * line; k += LANES)
            store(out + k, last ? vec{} : load(carry + k));
        below.whole(i, count);
    }
}

// `below` takes the input's gradient.
template <class T, class Below>
void block_backward(const T* x, const float* weight, const T* dy, const uint8_t* winners,
                    const Below& below, float* dweight, float* dbias, const Block& s, int threads) {
#if MATRIX_TILES
    if constexpr (std::is_same_v<T, bf16>)
        if (tiles::allowed())
            return tiles::block_backward(x, weight, dy, winners, below, dweight, dbias, s, threads);
#endif
    constexpr int CHANNELS = Products<T>::CHANNELS;
    const int pieces = s.films * s.strips;
    const size_t weights = (size_t)s.in * s.out * TAPS, part = weights + s.out;
    using S = Scatter<T>;
    Buffer<typename S::Number> filters(weights / TAPS / LANES * S::SIZE);
    Buffer<float> partial(part * pieces);
    for (int o = 0; o < s.out; o++)
        for (int i = 0; i < s.in; i++)
            for (int tap = 0; tap < TAPS; tap++)
                S::put(filters + ((size_t)(i / LANES) * s.out + o) * S::SIZE, tap, i % LANES,
                       weight[((size_t)o * s.in + i) * TAPS + tap]);
    Pool::run(pieces, threads, [&](Turn& turn) {
        Products<T> products(s);
        typename Below::template Strip<FirstSums<T>> into(below, s);
        Buffer<float> carry((size_t)2 * s.width * s.in);
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            const int begin = s.first_row(strip), end = s.first_row(strip + 1);
            float* mine = partial + part * turn.piece;
            std::fill_n(mine, weights, 0.0f);
            weight_gradient<T>(x, dy, winners, mine, s, film, begin, end, products);
            bias_gradient(dy, winners, mine + weights, s, film, begin, end);
            if (!below.wanted()) continue;
            into.begin(film);
            input_gradient<T>(filters, dy, winners, into, s, film, begin, end, carry);
            into.end(turn.piece);
        } while (turn.next());
    });
    Pool::run(s.out, threads, [&](Turn& turn) {
        do {
            const int o = turn.piece;
            for (int block = 0; block < s.in; block += CHANNELS) {
                const float* from =
                    partial + (size_t)block * s.out * TAPS + (size_t)o * CHANNELS * TAPS;
                vec sum[TAPS * WIDE] = {};
                for (int piece = 0; piece < pieces; piece++, from += part)
                    UNROLL for (int t = 0; t < TAPS * WIDE; t++) sum[t] += load(from + t * LANES);
                for (int t = 0; t < TAPS * WIDE; t++)
                    for (int lane = 0; lane < LANES; lane++) {
                        const int i = block + Products<T>::channel(t % WIDE, lane);
                        dweight[((size_t)o * s.in + i) * TAPS + t / WIDE] = sum[t][lane];
                    }
            }
            dbias[o] = 0;
            for (int piece = 0; piece < pieces; piece++)
                dbias[o] += partial[part * piece + weights + o];
        } while (turn.next());
    });
}

// Of the first two blocks: `first` is the lower.
template <class T>
void two_backward(const float* films, const T* x, const float* weight, const T* dy,
                  const uint8_t* first_winners, const uint8_t* winners, float* first_dweight,
                  float* first_dbias, float* dweight, float* dbias, const Block& first,
                  const Block& s, int threads) {
    const int pieces = s.films * s.strips;
    const Taken<T> below(films, first_winners, first, pieces);
    block_backward(x, weight, dy, winners, below, dweight, dbias, s, threads);
    first_together(below.shares, pieces, first.out, first_dweight, first_dbias);
}

}  // namespace hilum
