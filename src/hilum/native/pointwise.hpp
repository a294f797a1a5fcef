// Convolution 1x1 of channels alone, and the mean over 2x2 places, which stand beside the
// convolutions 3x3 of a residual block.
#pragma once

#include <vector>

#include "products.hpp"

namespace hilum {

// Pixels of all films as rows of channels, multiplied so many at a time.
struct Pixels {
    Pixels(const Shape& s) : in(s.in), out(s.out), count((long)s.films * s.height * s.width) {}
    const int in, out;
    const long count;
    static constexpr int TOGETHER = 256;
    int pieces() const { return (int)((count + TOGETHER - 1) / TOGETHER); }
    long first(int piece) const { return (long)piece * TOGETHER; }
    int of(int piece) const { return (int)std::min((long)TOGETHER, count - first(piece)); }
};

template <class T>
inline void widen(const T* from, size_t count, float* to) {
    for (size_t i = 0; i < count; i += LANES) store(to + i, load(from + i));
}

inline void transpose(const float* from, int rows, int columns, float* to) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) to[(size_t)j * rows + i] = from[(size_t)i * columns + j];
}

// x[pixels][in] to y[pixels][out] by weight[out][in].
template <class T>
void pointwise_forward(const T* x, const float* weight, T* y, const Pixels& p, int threads) {
    Buffer<float> filters((size_t)p.in * p.out);
    transpose(weight, p.out, p.in, filters);
    Pool::run(p.pieces(), threads, [&](Turn& turn) {
        Buffer<float> inputs(Pixels::TOGETHER * p.in), outputs(Pixels::TOGETHER * p.out);
        do {
            const long first = p.first(turn.piece);
            const int count = p.of(turn.piece);
            widen(x + first * p.in, (size_t)count * p.in, inputs);
            multiply(inputs, filters, outputs, count, p.out, p.in);
            for (size_t i = 0; i < (size_t)count * p.out; i += LANES)
                store(y + first * p.out + i, load(outputs + i));
        } while (turn.next());
    });
}

// dy[pixels][out] to dweight[out][in], and added to dx unless that is null.
template <class T>
void pointwise_backward(const T* x, const float* weight, const T* dy, T* dx, float* dweight,
                        const Pixels& p, int threads) {
    constexpr int MOST = 8;  // sums of the weights' gradient
    const int pieces = p.pieces(), sums = std::min(pieces, MOST);
    const size_t size = (size_t)p.in * p.out;
    Buffer<float> partial(size * sums);
    Pool::run(sums, threads, [&](Turn& turn) {
        Buffer<float> inputs(Pixels::TOGETHER * p.in), outputs(Pixels::TOGETHER * p.out);
        do {
            const int begin = (int)((long)pieces * turn.piece / sums);
            const int end = (int)((long)pieces * (turn.piece + 1) / sums);
            for (int piece = begin; piece < end; piece++) {
                const long first = p.first(piece);
                const int count = p.of(piece);
                widen(x + first * p.in, (size_t)count * p.in, inputs);
                widen(dy + first * p.out, (size_t)count * p.out, outputs);
                multiply<true>(inputs, outputs, partial + size * turn.piece, p.in, p.out, count,
                               piece > begin);
                if (!dx) continue;
                multiply(outputs, weight, inputs, count, p.in, p.out);
                T* to = dx + first * p.in;
                for (size_t i = 0; i < (size_t)count * p.in; i += LANES)
                    store(to + i, load(to + i) + load(inputs + i));
            }
        } while (turn.next());
    });
    for (int sum = 1; sum < sums; sum++)
        for (size_t i = 0; i < size; i += LANES)
            store(partial + i, load(partial + i) + load(partial + size * sum + i));
    transpose(partial, p.in, p.out, dweight);
}

// Calls what(place of the mean, places of which it is, how many, the number of a channel) for all
// 2x2 places, fewer at an odd edge.
template <class What>
void by_fours(const Shape& s, int threads, What what) {
    const int rows = (s.height + 1) / 2, columns = (s.width + 1) / 2;
    Pool::run(s.films * rows, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / rows, row = turn.piece % rows;
            const int down = std::min(2, s.height - 2 * row);
            for (int column = 0; column < columns; column++) {
                const int across = std::min(2, s.width - 2 * column);
                const size_t mean = ((size_t)turn.piece * columns + column) * s.in;
                size_t of[4];
                for (int i = 0; i < down * across; i++)
                    of[i] = (((size_t)film * s.height + 2 * row + i / across) * s.width +
                             2 * column + i % across) * s.in;
                for (int c = 0; c < s.in; c += LANES) what(mean + c, of, down * across, c);
            }
        } while (turn.next());
    });
}

template <class T>
void mean_forward(const T* x, T* y, const Shape& s, int threads) {
    by_fours(s, threads, [=](size_t mean, const size_t* of, int count, int c) {
        vec sum{};
        for (int i = 0; i < count; i++) sum += load(x + of[i] + c);
        store(y + mean, sum * (1.f / count));
    });
}

template <class T>
void mean_backward(const T* dy, T* dx, const Shape& s, int threads) {
    by_fours(s, threads, [=](size_t mean, const size_t* of, int count, int c) {
        const vec each = load(dy + mean) * (1.f / count);
        for (int i = 0; i < count; i++) store(dx + of[i] + c, each);
    });
}

}  // namespace hilum
