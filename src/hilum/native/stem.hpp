// The stem of a residual network: 2x2 pixels of a film become four channels (c = 2 row + column), then
// a convolution 3x3 in a frame of zeros, normalisation and ReLU. Seen from the film that convolution is
// one of 6x6 pixels that moves by two, so channels are never laid out.
#pragma once

#include "layers.hpp"

namespace hilum {

constexpr int SEEN = 6, FRAME = 2;  // a filter's side in pixels, the frame of zeros around a film

// A film in its frame.
class FramedFilm {
public:
    FramedFilm(const Shape& s)
        : line(s.width + 2 * FRAME), s(s), values((size_t)line * (s.height + 2 * FRAME)) {
        std::fill_n((float*)values, (size_t)line * (s.height + 2 * FRAME), 0.f);
    }
    void take(const float* film) const {
        for (int row = 0; row < s.height; row++)
            std::memcpy(values + (size_t)(row + FRAME) * line + FRAME, film + (size_t)row * s.width,
                        s.width * sizeof(float));
    }
    // What the output at a place sees first.
    const float* at(int row, int column) const { return values + (size_t)2 * row * line + 2 * column; }
    const size_t line;

private:
    const Shape& s;
    const Buffer<float> values;
};

// weight[out][4][TAPS], the one in the other's order: filters[SEEN][SEEN][out].
template <class What>
void by_seen(int out, What what) {
    for (int o = 0; o < out; o++)
        for (int c = 0; c < 4; c++)
            for (int tap = 0; tap < TAPS; tap++) {
                const int row = tap / 3 * 2 + c / 2, column = tap % 3 * 2 + c % 2;
                what(((size_t)o * 4 + c) * TAPS + tap, ((size_t)row * SEEN + column) * out + o);
            }
}

// COUNT outputs of a line, LANES channels.
template <int COUNT, class T>
inline void stem_outputs(const float* from, size_t line, const float* filters, int out, T* to) {
    vec sum[COUNT] = {};
    for (int row = 0; row < SEEN; row++, from += line)
        UNROLL for (int column = 0; column < SEEN; column++, filters += out) {
            const vec filter = load(filters);
            UNROLL for (int i = 0; i < COUNT; i++) sum[i] += from[2 * i + column] * filter;
        }
    UNROLL for (int i = 0; i < COUNT; i++) store(to + (size_t)i * out, sum[i]);
}

template <class T>
void stem_forward(const float* x, const float* weight, T* z, const Shape& s, int threads) {
    constexpr int AT_A_TIME = 8;
    const int rows = s.height / 2, columns = s.width / 2, out = s.out;
    Buffer<float> filters((size_t)SEEN * SEEN * out);
    by_seen(out, [&](size_t in_weight, size_t in_filters) { filters[in_filters] = weight[in_weight]; });
    Pool::run(s.films, threads, [&](Turn& turn) {
        const FramedFilm film(s);
        do {
            film.take(x + (size_t)turn.piece * s.height * s.width);
            T* to = z + (size_t)turn.piece * rows * columns * out;
            for (int row = 0; row < rows; row++, to += (size_t)columns * out)
                for (int o = 0; o < out; o += LANES) {
                    int column = 0;
                    for (; column + AT_A_TIME <= columns; column += AT_A_TIME)
                        stem_outputs<AT_A_TIME>(film.at(row, column), film.line, filters + o, out,
                                                to + (size_t)column * out + o);
                    for (; column < columns; column++)
                        stem_outputs<1>(film.at(row, column), film.line, filters + o, out,
                                        to + (size_t)column * out + o);
                }
        } while (turn.next());
    });
}

// dz[films][height/2][width/2][out] to dweight; the films get no gradient.
template <class T>
void stem_backward(const float* x, const T* dz, float* dweight, const Shape& s, int threads) {
    constexpr int LINES = AVX512 ? 3 : 1, PIECES = 4;  // lines of a filter summed at a time
    const int rows = s.height / 2, columns = s.width / 2, out = s.out;
    const int pieces = std::clamp(s.films, 1, PIECES);
    const size_t size = (size_t)SEEN * SEEN * out;
    Buffer<float> sums(size * pieces);
    Pool::run(pieces, threads, [&](Turn& turn) {
        const FramedFilm film(s);
        do {
            float* mine = sums + size * turn.piece;
            std::fill_n(mine, size, 0.f);
            const int end = (int)((long)s.films * (turn.piece + 1) / pieces);
            for (int f = (int)((long)s.films * turn.piece / pieces); f < end; f++) {
                film.take(x + (size_t)f * s.height * s.width);
                for (int o = 0; o < out; o += LANES)
                    for (int first = 0; first < SEEN; first += LINES) {
                        float* to = mine + (size_t)first * SEEN * out + o;
                        vec sum[LINES * SEEN];
                        UNROLL for (int i = 0; i < LINES * SEEN; i++) sum[i] = load(to + i * out);
                        const T* from = dz + (size_t)f * rows * columns * out + o;
                        for (int row = 0; row < rows; row++) {
                            const float* seen = film.at(row, 0) + first * film.line;
                            for (int column = 0; column < columns; column++, from += out) {
                                const vec gradient = load(from);
                                UNROLL for (int i = 0; i < LINES * SEEN; i++)
                                    sum[i] += seen[i / SEEN * film.line + 2 * column + i % SEEN] *
                                              gradient;
                            }
                        }
                        UNROLL for (int i = 0; i < LINES * SEEN; i++) store(to + i * out, sum[i]);
                    }
            }
        } while (turn.next());
    });
    by_seen(out, [&](size_t in_weight, size_t in_filters) {
        float total = 0;
        for (int piece = 0; piece < pieces; piece++) total += sums[size * piece + in_filters];
        dweight[in_weight] = total;
    });
}

}  // namespace hilum
