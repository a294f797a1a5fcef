// The convolution in a frame of zeros by matrix tiles, of bfloat16 maps.
#pragma once

#include "pairs.hpp"
#include "tiles.hpp"

#if MATRIX_TILES
namespace hilum::tiles {

// Maps of a few films as one long line of pixels, with two noughts behind each of their lines, and a
// line of noughts behind each film: each tap of a 3x3 filter then sees a pixel a fixed way from the
// output's, and what is multiplied by noughts behind the last tap is no pixel of another line.
struct Layout : Shape {
    explicit Layout(const Shape& shape) : Shape(shape) {}
    const int line = width + 2, film = (height + 1) * line;
    const int together = std::clamp(ENOUGH / film, 1, std::max(films, 1));
    const int groups = (films + together - 1) / together;
    const int pieces = std::clamp(groups, 1, PIECES);  // of the weights' gradient
    const int lead = line + 1;                         // noughts before the first pixel
    const int most = (together * film + DEPTH - 1) / DEPTH * DEPTH;  // outputs
    const int length = most + 2 * lead + DEPTH;                      // with what their taps see
    int first_film(int group) const { return group * together; }
    int films_of(int group) const {
        return std::min(films, first_film(group + 1)) - first_film(group);
    }
    int outputs(int group) const { return (films_of(group) * film + DEPTH - 1) / DEPTH * DEPTH; }
    int first_group(int piece) const { return (int)((long)groups * piece / pieces); }

    static constexpr int ENOUGH = 1024;  // pixels computed together
    static constexpr int PIECES = 4;
};

// Pixels in that order, with a map's channels.
class Line {
public:
    Line(const Layout& layout, int channels)
        : channels(channels), l(layout), values((size_t)l.length * channels) {
        std::fill_n((bf16*)values, (size_t)l.length * channels, 0);
    }
    bf16* at(int pixel) const { return values + (size_t)pixel * channels; }
    void take(const bf16* maps, int group) const {
        const size_t row = (size_t)l.width * channels;
        const bf16* from = maps + (size_t)l.first_film(group) * l.height * row;
        for (int film = 0; film < l.films_of(group); film++)
            for (int i = 0; i < l.height; i++, from += row)
                std::memcpy(at(l.lead + film * l.film + i * l.line), from, row * sizeof(bf16));
        const int end = l.lead + l.films_of(group) * l.film;
        std::fill_n(at(end), (size_t)(l.length - end) * channels, 0);
    }
    const int channels;

private:
    const Layout& l;
    const Buffer<bf16> values;
};

// Outputs from `pixel` on, twice 16 of 16 R channels: to[32][out].
template <int R>
void convolve(const bf16* from, const Filters& f, int line, int block, bf16* to) {
    using S = Sums<2, R>;
    alignas(64) float sums[2 * R * SUMS];
    S::zero();
    for (int down = 0; down < 3; down++, from += (size_t)line * f.in)
        for (int step = 0; step < f.steps; step++) {
            S::load_left(from + step * DEPTH, (size_t)SIDE * f.in, f.in * sizeof(bf16));
            S::load_right(f.right(block, down, step), f.next(), 64);
            S::multiply();
        }
    S::store(sums);
    for (int i = 0; i < 2 * SIDE; i++)
        for (int half = 0; half < R; half++)
            hilum::store(to + (size_t)i * f.out + block + half * SIDE,
                         hilum::load(sums + ((i / SIDE * R + half) * SIDE + i % SIDE) * SIDE));
}

// A group's films to maps.
inline void convolve(const Line& from, const Filters& f, bf16* maps, const Layout& l, int group) {
    Buffer<bf16> found((size_t)DEPTH * f.out);
    const int end = l.films_of(group) * l.film;
    bf16* to = maps + (size_t)l.first_film(group) * l.height * l.width * f.out;
    for (int pixel = 0, column = 0, row = 0; pixel < end; pixel += DEPTH) {
        for (int block = 0; block < f.out; block += DEPTH)
            (block + SIDE < f.out ? convolve<2> : convolve<1>)(from.at(pixel), f, l.line, block,
                                                               found);
        for (int i = 0; i < DEPTH;) {  // as many at once as lie side by side
            const int many = std::min(DEPTH - i, l.line - column);
            const int wanted = row < l.height ? std::min(many, l.width - column) : 0;
            if (wanted > 0 && pixel + i < end) {
                std::memcpy(to, found + (size_t)i * f.out, (size_t)wanted * f.out * sizeof(bf16));
                to += (size_t)wanted * f.out;
            }
            i += many, column += many;
            if (column == l.line) column = 0, row = row == l.height ? 0 : row + 1;
        }
    }
}

// A pixel's 16 channels and the next one's in pairs.
inline __m512i paired(const bf16* pixel, const bf16* next) {
    return paired(_mm256_loadu_si256((const __m256i*)pixel),
                  _mm256_loadu_si256((const __m256i*)next));
}

// The factors of the weights' gradient: [channels / 16] of them one after another.
class PixelPairs {  // pixels in pairs, of an even one and the next and of an odd one and the next
public:
    PixelPairs(const Layout& l, int channels)
        : channels(channels), pairs(l.length / 2), values((size_t)2 * pairs * 2 * channels) {}
    void take(const Line& line, int outputs, const Layout& l) const {
        const int end = outputs / 2 + l.lead;  // as far as taps see
        for (int odd = 0; odd < 2; odd++)
            for (int c = 0; c < channels; c += SIDE)
                for (int i = 0; i < end; i++) {
                    const bf16* pixel = line.at(2 * i + odd) + c;
                    _mm512_storeu_si512((bf16*)right(2 * i + odd, c),
                                        paired(pixel, pixel + channels));
                }
    }
    const bf16* right(int pixel, int c) const {
        const size_t line = (size_t)(pixel & 1) * (channels / SIDE) + c / SIDE;
        return values + (line * pairs + pixel / 2) * DEPTH;
    }
    size_t next() const { return (size_t)pairs * DEPTH; }

private:
    const int channels, pairs;
    const Buffer<bf16> values;
};

class Turned {  // 32 pixels of each channel side by side
public:
    Turned(const Layout& l, int channels)
        : channels(channels), chunks(l.most / DEPTH), values((size_t)chunks * DEPTH * channels) {}
    void take(const Line& line, int outputs, const Layout& l) const {
        for (int chunk = 0; chunk < outputs / DEPTH; chunk++)
            for (int c = 0; c < channels; c += SIDE) {
                __m512i v[SIDE];
                UNROLL for (int i = 0; i < SIDE; i++) {
                    const bf16* pixel = line.at(l.lead + chunk * DEPTH + 2 * i) + c;
                    v[i] = paired(pixel, pixel + channels);
                }
                transpose(v);
                bf16* to = (bf16*)left(chunk, c);
                UNROLL for (int i = 0; i < SIDE; i++) _mm512_storeu_si512(to + i * DEPTH, v[i]);
            }
    }
    const bf16* left(int chunk, int c) const {
        return values + ((size_t)c / SIDE * chunks + chunk) * PART;
    }
    size_t next() const { return (size_t)chunks * PART; }

private:
    const int channels, chunks;
    const Buffer<bf16> values;
};

// Adds to sums[out / 16][in / 16][16][16] of a tap; L and R of them at a time.
template <int L, int R>
void add_products(const Turned& dy, const PixelPairs& x, int out, int in, int away, int outputs,
                  float* sums) {
    using S = Sums<L, R>;
    S::load(sums);
    for (int chunk = 0; chunk < outputs / DEPTH; chunk++) {
        S::load_left(dy.left(chunk, out), dy.next(), 64);
        S::load_right(x.right(chunk * DEPTH + away, in), x.next(), 64);
        S::multiply();
    }
    S::store(sums);
}

class FramedSums {
public:
    explicit FramedSums(const Layout& l) : in(l.in), out(l.out) {}
    size_t size() const { return (size_t)in * out * TAPS; }
    // [TAPS] of blocks of at most 32 x 32, each [out / 16][in / 16][16][16].
    size_t place(int o, int i, int tap) const {
        const int first = i / DEPTH * DEPTH, wide = std::min(DEPTH, in - first);
        const int high = std::min(DEPTH, out - o / DEPTH * DEPTH);
        const size_t block = (size_t)o / DEPTH * DEPTH * in + (size_t)high * first;
        return (size_t)tap * in * out + block +
               ((size_t)o % DEPTH / SIDE * (wide / SIDE) + i % DEPTH / SIDE) * SUMS +
               o % SIDE * SIDE + i % SIDE;
    }
    void add(const Turned& dy, const PixelPairs& x, const Layout& l, int outputs, float* sums) const {
        for (int o = 0; o < out; o += DEPTH)
            for (int i = 0; i < in; i += DEPTH)
                for (int tap = 0; tap < TAPS; tap++) {
                    const bool high = o + SIDE < out, wide = i + SIDE < in;
                    const auto product = high ? wide ? add_products<2, 2> : add_products<2, 1>
                                              : wide ? add_products<1, 2> : add_products<1, 1>;
                    product(dy, x, o, i, tap / 3 * l.line + tap % 3, outputs,
                            sums + place(o, i, tap));
                }
    }

private:
    const int in, out;
};

inline void framed_forward(const bf16* x, const float* weight, bf16* y, const Shape& shape,
                           int threads) {
    const Layout l(shape);
    const Filters filters(weight, l.in, l.out, false);
    Pool::run(l.groups, threads, [&](Turn& turn) {
        const Configured configured(SIDE);
        const Line inputs(l, l.in);
        do {
            inputs.take(x, turn.piece);
            convolve(inputs, filters, y, l, turn.piece);
        } while (turn.next());
    });
}

// `dx` may be null.
inline void framed_backward(const bf16* x, const float* weight, const bf16* dy, bf16* dx,
                            float* dweight, const Shape& shape, int threads) {
    const Layout l(shape);
    const Filters filters(weight, l.in, l.out, true);
    const FramedSums sums(l);
    Buffer<float> partial(sums.size() * l.pieces);
    Pool::run(l.pieces, threads, [&](Turn& turn) {
        const Configured configured(SIDE);
        const Line inputs(l, l.in), gradients(l, l.out);
        const PixelPairs pairs(l, l.in);
        const Turned turned(l, l.out);
        do {
            float* mine = partial + sums.size() * turn.piece;
            std::fill_n(mine, sums.size(), 0.0f);
            for (int g = l.first_group(turn.piece); g < l.first_group(turn.piece + 1); g++) {
                const int outputs = l.outputs(g);
                inputs.take(x, g), gradients.take(dy, g);
                pairs.take(inputs, outputs, l), turned.take(gradients, outputs, l);
                sums.add(turned, pairs, l, outputs, mine);
                if (dx) convolve(gradients, filters, dx, l, g);
            }
        } while (turn.next());
    });
    for (int piece = 1; piece < l.pieces; piece++)
        for (size_t i = 0; i < sums.size(); i += LANES)
            hilum::store(partial + i,
                         hilum::load(partial + i) + hilum::load(partial + sums.size() * piece + i));
    for (int o = 0; o < l.out; o++)
        for (int i = 0; i < l.in; i++)
            for (int tap = 0; tap < TAPS; tap++)
                dweight[((size_t)o * l.in + i) * TAPS + tap] = partial[sums.place(o, i, tap)];
}

}  // namespace hilum::tiles
#endif
