// Backward convolution from the winners alone.
#pragma once

#include "gather.hpp"

namespace hilum {

template <class T>
using Number = typename Products<T>::Number;

template <class T>
void bias_gradient(const T* dy, const uint8_t* winners, float* dbias, const Block& s, int film,
                   int begin, int end) {
    for (int c = 0; c < s.out; c += LANES) {
        vec sum{};
        for (size_t at = s.pixel(film, begin, 0) + c; at < s.pixel(film, end, 0); at += s.out) {
            const vec gradient = load(dy + at);
            sum += load_places(winners + at) == DEAD ? vec{} : gradient;
        }
        store(dbias + c, sum);
    }
}

// Events of one filter in a segment, and one to make them even.
template <class T>
constexpr int CAPACITY = Products<T>::SEGMENT_ROWS * SEGMENT_COLUMNS + 1;

// A strip's share, added to dweight[in / IN_BLOCK][out][TAPS][IN_BLOCK] in the lanes' own order.
template <class T>
void weight_gradient(const T* x, const T* dy, const uint8_t* winners, float* dweight,
                     const Block& s, int film, int begin, int end, Number<T>* patch,
                     Event* events) {
    constexpr int SEGMENT_ROWS = Products<T>::SEGMENT_ROWS;
    for (int row = begin; row < end; row += SEGMENT_ROWS)
        for (int column = 0; column < s.columns; column += SEGMENT_COLUMNS) {
            const int height = std::min(SEGMENT_ROWS, end - row);
            const int width = std::min(SEGMENT_COLUMNS, s.columns - column);
            const bool right = column + width < s.columns;  // the next segment is there, else below
            const int ahead_row = 2 * row + (right ? 0 : 2 * height + 2);
            const int ahead_column = right ? 2 * (column + width) + 2 : 0;
            for (int group = 0; group < s.out; group += GROUP) {
                Event* end_of[GROUP];
                for (int c = 0; c < GROUP; c++) end_of[c] = events + c * CAPACITY<T>;
                for (int i = 0; i < height; i++)
                    for (int j = 0; j < width; j++) {
                        const size_t pixel = s.pixel(film, row + i, column + j) + group;
                        alignas(64) float gradient[GROUP];
                        alignas(64) int32_t at[GROUP];
                        for (int c = 0; c < GROUP; c += LANES) {
                            const ivec place = load_places(winners + pixel + c);
                            store(gradient + c, load(dy + pixel + c));
                            *(ivec*)(at + c) = 2 * i * PATCH_LINE + 2 * j * IN_BLOCK +
                                               (place >> 1) * PATCH_LINE + (place & 1) * IN_BLOCK;
                        }
                        uint32_t alive = ~channels_with(winners + pixel, DEAD);
                        for (; alive; alive &= alive - 1) {
                            const int c = __builtin_ctz(alive);
                            *end_of[c]++ = {gradient[c], at[c]};
                        }
                    }
                for (int block = 0; block < s.in; block += IN_BLOCK) {
                    for (int i = 0; i < 2 * height + 2; i++)
                        for (int j = 0; j < 2 * width + 2; j++)
                            for (int k = 0; k < IN_BLOCK; k += LANES)
                                copy(x + s.input(film, 2 * row + i, 2 * column + j) + block + k,
                                     patch + i * PATCH_LINE + j * IN_BLOCK + k);
                    for (int c = 0; c < GROUP; c++) {
                        if (ahead_column + c < s.width)
                            for (int i = ahead_row;
                                 i < std::min(2 * row + 2 * height + 6, s.height); i++)
                                prefetch(x + s.input(film, i, ahead_column + c) + block,
                                         IN_BLOCK * sizeof(T), 0, 1);
                        const size_t filter =
                            (size_t)block * s.out + (size_t)(group + c) * IN_BLOCK;
                        Products<T>::gather(patch, events + c * CAPACITY<T>, end_of[c],
                                            dweight + filter * TAPS);
                    }
                }
            }
        }
}

// Adds the filters of the channels that won at PLACE, each times its gradient, to a 4x4 patch.
template <int PLACE>
inline void scatter(const uint8_t* winners, const float* gradient, const float* filters,
                    vec (&sum)[4][4]) {
    for (uint32_t won = channels_with(winners, PLACE); won; won &= won - 1) {
        const int c = __builtin_ctz(won);
        const vec value = broadcast(gradient[c]);
        UNROLL for (int tap = 0; tap < TAPS; tap++)
            sum[PLACE / 2 + tap / 3][PLACE % 2 + tap % 3] +=
                value * load(filters + (c * TAPS + tap) * LANES);
    }
}

// Lines 2 begin .. 2 end - 1 of the input's gradient, and those behind them if nothing follows.
// A 4x4 patch of sums walks along the windows; what it leaves on the next two lines is carried.
// filters[in / LANES][out][TAPS][LANES].
template <class T>
void input_gradient(const float* filters, const T* dy, const uint8_t* winners, T* dx,
                    const Block& s, int film, int begin, int end, float* carry, float* gradient) {
    const size_t line = (size_t)s.width * s.in;
    std::fill_n(carry, 2 * line, 0.0f);
    for (int row = std::max(begin - 1, 0); row < end; row++) {
        const size_t first = s.pixel(film, row, 0);
        for (int i = 0; i < s.columns * s.out; i += LANES)
            store(gradient + i, load(dy + first + i));
        T* out = row < begin ? nullptr : dx + s.input(film, 2 * row, 0);
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
                    const size_t at = (size_t)column * s.out + group;
                    const float* mine =
                        filters + ((size_t)k * s.out + (size_t)group * LANES) * TAPS;
                    scatter<0>(winners + first + at, gradient + at, mine, sum);
                    scatter<1>(winners + first + at, gradient + at, mine, sum);
                    scatter<2>(winners + first + at, gradient + at, mine, sum);
                    scatter<3>(winners + first + at, gradient + at, mine, sum);
                }
                leave(2 * column, 0), leave(2 * column + 1, 1);
                UNROLL for (int i = 0; i < 4; i++) sum[i][0] = sum[i][2], sum[i][1] = sum[i][3];
            }
            leave(2 * s.columns, 0), leave(2 * s.columns + 1, 1);
            if (out && s.width > 2 * s.columns + 2)  // an odd last column has no window
                for (int i = 0; i < 2; i++) store(out + (i + 1) * line - s.in + k, vec{});
        }
    }
    for (int i = 2 * s.rows; end == s.rows && i < s.height; i++) {
        const float* left = i < 2 * s.rows + 2 ? carry + (i - 2 * s.rows) * line : nullptr;
        for (size_t k = 0; k < line; k += LANES)
            store(dx + s.input(film, i, 0) + k, left ? load(left + k) : vec{});
    }
}

template <class T>
void block_backward(const T* x, const float* weight, const T* dy, const uint8_t* winners, T* dx,
                    float* dweight, float* dbias, const Block& s, int threads) {
    constexpr size_t PATCH = (size_t)(2 * Products<T>::SEGMENT_ROWS + 2) * PATCH_LINE;
    const int pieces = s.films * s.strips;
    const size_t weights = (size_t)s.in * s.out * TAPS, part = weights + s.out;
    Buffer<float> filters(weights), partial(part * pieces);
    for (int o = 0; o < s.out; o++)
        for (int i = 0; i < s.in; i++)
            for (int tap = 0; tap < TAPS; tap++)
                filters[(((size_t)(i / LANES) * s.out + o) * TAPS + tap) * LANES + i % LANES] =
                    weight[((size_t)o * s.in + i) * TAPS + tap];
    Pool::run(pieces, threads, [&](Turn& turn) {
        Buffer<Number<T>> patch(PATCH);
        Buffer<Event> events((size_t)GROUP * CAPACITY<T>);
        Buffer<float> carry((size_t)2 * s.width * s.in), gradient((size_t)s.columns * s.out);
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            const int begin = s.first_row(strip), end = s.first_row(strip + 1);
            float* mine = partial + part * turn.piece;
            std::fill_n(mine, weights, 0.0f);
            weight_gradient<T>(x, dy, winners, mine, s, film, begin, end, patch, events);
            bias_gradient(dy, winners, mine + weights, s, film, begin, end);
            if (dx)
                input_gradient<T>(filters, dy, winners, dx, s, film, begin, end, carry, gradient);
        } while (turn.next());
    });
    Pool::run(s.out, threads, [&](Turn& turn) {
        do {
            const int o = turn.piece;
            for (int block = 0; block < s.in; block += IN_BLOCK) {
                const float* from =
                    partial + (size_t)block * s.out * TAPS + (size_t)o * IN_BLOCK * TAPS;
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

}  // namespace hilum
