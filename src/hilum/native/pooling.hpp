// ReLU and 2x2 max-pooling alone.
#pragma once

#include "layers.hpp"

namespace hilum {

template <class T>
void pool_forward(const T* x, T* y, uint8_t* winners, const Shape& s, int threads) {
    const int rows = s.height / 2, columns = s.width / 2;
    const size_t line = (size_t)s.width * s.in;
    Pool::run(s.films * rows, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / rows, row = turn.piece % rows;
            const T* top = x + ((size_t)film * s.height + 2 * row) * line;
            size_t out = (size_t)turn.piece * columns * s.in;
            for (int column = 0; column < columns; column++, top += 2 * s.in)
                for (int c = 0; c < s.in; c += LANES, out += LANES) {
                    const T *left = top + c, *right = left + s.in;
                    const Pooled best =
                        relu_pool(load(left), load(right), load(left + line), load(right + line));
                    keep(best, y + out, winners + out);
                }
        } while (turn.next());
    });
}

template <class T>
void pool_backward(const T* dy, const uint8_t* winners, T* dx, const Shape& s, int threads) {
    const int rows = s.height / 2, columns = s.width / 2;
    const size_t line = (size_t)s.width * s.in, windows = (size_t)2 * columns * s.in;
    const int lines = (s.height + 1) / 2;
    Pool::run(s.films * lines, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / lines, row = turn.piece % lines;
            T* top = dx + ((size_t)film * s.height + 2 * row) * line;
            if (row == rows) {  // an odd last row has no window
                std::fill_n(top, line, T{});
                continue;
            }
            size_t in = ((size_t)film * rows + row) * columns * s.in;
            for (T* corner = top; corner < top + windows; corner += 2 * s.in)
                for (int c = 0; c < s.in; c += LANES, in += LANES) {
                    const vec gradient = load(dy + in);
                    const ivec winner = load_places(winners + in);
                    UNROLL for (int place = 0; place < 4; place++)
                        store(corner + place / 2 * line + place % 2 * s.in + c,
                              winner == place ? gradient : vec{});
                }
            for (T* end : {top + windows, top + line + windows})
                std::fill_n(end, line - windows, T{});
        } while (turn.next());
    });
}

}  // namespace hilum
