// Convolution 3x3 in a frame of zeros, stride 1, forward and backward: in bfloat16 by matrix tiles
// where there are some (framed_tiles.hpp), else by the minimal filtering of
// winograd.hpp: Y = A'[(G g G') * (B' d B)]A for each tile of 4x4 outputs (Lavin and Gray, CVPR
// 2016). The way back is the exact adjoint of that sum, so its products are as few:
//     dg = G'[(A dY A') * (B' d B)]G        dd = B[(G g G') * (A dY A')]B'
#pragma once

#include "framed_tiles.hpp"
#include "winograd.hpp"

namespace hilum {

constexpr int TOGETHER = 1024;         // values that one point of a group has: L2 holds them all
constexpr int ENOUGH = 128;            // tiles that are worth a sum of filters of their own
constexpr int PIECES = 4;              // such sums at most

// The adjoints of the transforms of an output, an input and a filter, one dimension each.
inline void spread_output(const vec (&y)[4], vec (&m)[TILE]) {
    const vec even = y[0] + y[2], odd = y[1] + y[3], even2 = y[0] + 4 * y[2];
    const vec odd2 = 2 * y[1] + 8 * y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = even2 + odd2;
    m[4] = even2 - odd2;
    m[5] = y[3];
}

inline void gather_input(const vec (&t)[TILE], vec (&d)[TILE]) {
    const vec sum = t[1] + t[2], difference = t[1] - t[2];
    const vec sum2 = t[3] + t[4], difference2 = 2 * (t[3] - t[4]);
    d[0] = 4 * t[0];
    d[1] = 4 * (t[5] - difference) - difference2;
    d[2] = -5 * t[0] - 4 * sum - sum2;
    d[3] = difference + difference2 - 5 * t[5];
    d[4] = t[0] + sum + sum2;
    d[5] = t[5];
}

inline void gather_filter(const vec (&t)[TILE], vec (&g)[3]) {
    const vec sum = (t[1] + t[2]) * (1.f / 6), sum2 = t[3] + t[4];
    g[0] = t[0] * (1.f / 4) - sum + sum2 * (1.f / 24);
    g[1] = (t[2] - t[1]) * (1.f / 6) + (t[3] - t[4]) * (1.f / 12);
    g[2] = t[5] + sum2 * (1.f / 6) - sum;
}

struct Framed : Shape {
    explicit Framed(const Shape& shape) : Shape(shape) {}
    const int down = (height + 3) / 4, across = (width + 3) / 4, tiles = down * across;
    // Films computed together, as many as fill a group of tiles; pieces: by the shape alone.
    const int together =
        std::clamp(TOGETHER / std::max(in, out) / std::max(tiles, 1), 1, std::max(films, 1));
    const int groups = (films + together - 1) / together;
    const int pieces = std::clamp((int)std::min((long)films * tiles / ENOUGH, (long)PIECES), 1,
                                  std::max(groups, 1));
    size_t pixels() const { return (size_t)height * width; }
    int first_film(int group) const { return group * together; }
    int end_film(int group) const { return std::min(films, first_film(group) + together); }
    int tiles_of(int group) const { return (end_film(group) - first_film(group)) * tiles; }
    int first_group(int piece) const { return (int)((long)groups * piece / pieces); }
};

// Values of a group's tiles at each of the points: [POINTS][tiles][channels], points a cache line
// further apart than that, so that they do not fall into the same sets of the cache.
struct Tiles {
    Tiles(const Framed& s, int channels)
        : channels(channels),
          apart((size_t)s.together * s.tiles * channels + LINE),
          values(POINTS * apart) {}
    const int channels;
    const size_t apart;
    const Buffer<float> values;
    float* at(int point, int tile = 0) const {
        return values + point * apart + (size_t)tile * channels;
    }
};

// Maps in memory, float or bfloat16. Only whole lines go in and out, so all that is computed between
// is compiled once for both.
struct Maps {
    Maps(const float* values) : single((float*)values) {}
    Maps(const bf16* values) : half((bf16*)values) {}
    explicit operator bool() const { return single || half; }
    void read(size_t from, size_t length, float* to) const {
        for (size_t i = 0; i < length; i += LANES)
            store(to + i, half ? load(half + from + i) : load(single + from + i));
    }
    void write(size_t to, size_t length, const float* from) const {
        for (size_t i = 0; i < length; i += LANES)
            half ? store(half + to + i, load(from + i)) : store(single + to + i, load(from + i));
    }
    float* single = nullptr;
    bf16* half = nullptr;
};

// One film's map in a frame of zeros: one pixel before it, and as many behind as its tiles reach.
struct Frame {
    Frame(const Framed& s, int channels)
        : channels(channels),
          line((size_t)(4 * s.across + 2) * channels),
          height(4 * s.down + 2),
          values(line * height) {
        clear();
    }
    const int channels;
    const size_t line;
    const int height;
    const Buffer<float> values;
    float* at(int row, int column) const { return values + row * line + (size_t)column * channels; }
    void clear() const { std::fill_n((float*)values, line * height, 0.f); }
    void take(const Maps& maps, size_t from, const Framed& s) const {
        const size_t length = (size_t)s.width * channels;
        for (int y = 0; y < s.height; y++, from += length) maps.read(from, length, at(y + 1, 1));
    }
    void give(const Maps& maps, size_t to, const Framed& s) const {
        const size_t length = (size_t)s.width * channels;
        for (int y = 0; y < s.height; y++, to += length) maps.write(to, length, at(y + 1, 1));
    }
};

// Maps [films][height][width][channels] of a group to tiles: inputs (SIDE 6, from one pixel before
// the tile's outputs on) or gradients of outputs (SIDE 4).
template <int SIDE, auto transform>
void take(const Maps& maps, const Framed& s, int group, const Tiles& tiles, const Frame& frame) {
    constexpr int BEFORE = SIDE == TILE ? 0 : 1;
    const int c = tiles.channels;
    const size_t apart = tiles.apart, line = frame.line;
    int tile = 0;
    for (int film = s.first_film(group); film < s.end_film(group); film++) {
        frame.take(maps, film * s.pixels() * c, s);
        for (int row = 0; row < s.down; row++)
            for (int column = 0; column < s.across; column++, tile++)
                for (int k = 0; k < c; k += LANES) {
                    const float* corner = frame.at(4 * row + BEFORE, 4 * column + BEFORE) + k;
                    float* target = tiles.at(0, tile) + k;
                    both_ways<transform, SIDE, TILE>(
                        [=](int i, int j) { return load(corner + i * line + j * c); },
                        [=](int i, int j, vec v) { store(target + (i * TILE + j) * apart, v); });
                }
    }
}

// Tiles of a group back to maps: outputs (SIDE 4), or gradients of inputs (SIDE 6), which overlap
// and are added up.
template <int SIDE, auto transform>
void put(const Tiles& tiles, const Maps& maps, const Framed& s, int group, const Frame& frame) {
    constexpr int BEFORE = SIDE == TILE ? 0 : 1;
    const int c = tiles.channels;
    const size_t apart = tiles.apart, line = frame.line;
    int tile = 0;
    for (int film = s.first_film(group); film < s.end_film(group); film++) {
        if (SIDE == TILE) frame.clear();
        for (int row = 0; row < s.down; row++)
            for (int column = 0; column < s.across; column++, tile++)
                for (int k = 0; k < c; k += LANES) {
                    float* corner = frame.at(4 * row + BEFORE, 4 * column + BEFORE) + k;
                    const float* source = tiles.at(0, tile) + k;
                    both_ways<transform, TILE, SIDE>(
                        [=](int i, int j) { return load(source + (i * TILE + j) * apart); },
                        [=](int i, int j, vec v) {
                            float* to = corner + i * line + j * c;
                            store(to, SIDE == TILE ? load(to) + v : v);
                        });
                }
        frame.give(maps, film * s.pixels() * c, s);
    }
}

// weight[out][in][TAPS] to filters[POINTS][in][out]; `turned`: to [POINTS][out][in].
inline void filters_of(const float* weight, float* filters, int in, int out, bool turned) {
    for (int i = 0; i < in; i++)
        for (int o = 0; o < out; o += LANES) {
            vec g[3][3];
            for (int lane = 0; lane < LANES; lane++)
                for (int tap = 0; tap < TAPS; tap++)
                    g[tap / 3][tap % 3][lane] = weight[((size_t)(o + lane) * in + i) * TAPS + tap];
            both_ways<transform_filter, 3, TILE>(
                [&](int a, int b) { return g[a][b]; },
                [&](int a, int b, vec v) {
                    float* to = filters + (size_t)(a * TILE + b) * in * out;
                    if (!turned) store(to + (size_t)i * out + o, v);
                    for (int lane = 0; turned && lane < LANES; lane++)
                        to[(size_t)(o + lane) * in + i] = v[lane];
                });
        }
}

// x[films][height][width][in] to y[films][height][width][out].
inline void framed_forward(Maps x, const float* weight, Maps y, const Framed& s, int threads) {
#if MATRIX_TILES
    if (x.half && tiles::allowed())
        return tiles::framed_forward(x.half, weight, y.half, s, threads);
#endif
    Buffer<float> filters((size_t)POINTS * s.in * s.out);
    filters_of(weight, filters, s.in, s.out, false);
    Pool::run(s.groups, threads, [&](Turn& turn) {
        const Tiles inputs(s, s.in), outputs(s, s.out);
        const Frame input(s, s.in), output(s, s.out);
        do {
            take<TILE, transform_input>(x, s, turn.piece, inputs, input);
            for (int p = 0; p < POINTS; p++)
                multiply(inputs.at(p), filters + (size_t)p * s.in * s.out,
                         outputs.at(p), s.tiles_of(turn.piece), s.out, s.in);
            put<4, transform_output>(outputs, y, s, turn.piece, output);
        } while (turn.next());
    });
}

// dy[films][height][width][out] to dweight[out][in][TAPS], and to dx unless that is null.
inline void framed_backward(Maps x, const float* weight, Maps dy, Maps dx, float* dweight,
                            const Framed& s, int threads) {
#if MATRIX_TILES
    if (x.half && tiles::allowed())
        return tiles::framed_backward(x.half, weight, dy.half, dx.half, dweight, s, threads);
#endif
    const size_t part = (size_t)POINTS * s.in * s.out;
    Buffer<float> filters(part), sums(part * s.pieces);
    if (dx) filters_of(weight, filters, s.in, s.out, true);
    Pool::run(s.pieces, threads, [&](Turn& turn) {
        const Tiles inputs(s, s.in), gradients(s, s.out);
        const Frame input(s, s.in), output(s, s.out), sum(s, s.in);
        do {
            const int first = s.first_group(turn.piece), end = s.first_group(turn.piece + 1);
            for (int group = first; group < end; group++) {
                take<4, spread_output>(dy, s, group, gradients, output);
                take<TILE, transform_input>(x, s, group, inputs, input);
                for (int p = 0; p < POINTS; p++) {
                    const size_t at = (size_t)p * s.in * s.out;
                    multiply<true>(inputs.at(p), gradients.at(p), sums + part * turn.piece + at,
                                   s.in, s.out, s.tiles_of(group), group > first);
                    if (dx)  // over the inputs, which have done their work
                        multiply(gradients.at(p), filters + at, inputs.at(p), s.tiles_of(group),
                                 s.in, s.out);
                }
                if (dx) put<TILE, gather_input>(inputs, dx, s, group, sum);
            }
        } while (turn.next());
    });
    for (int i = 0; i < s.in; i++)
        for (int o = 0; o < s.out; o += LANES)
            both_ways<gather_filter, TILE, 3>(
                [&](int a, int b) {
                    const float* from = sums + ((size_t)(a * TILE + b) * s.in + i) * s.out + o;
                    vec sum = load(from);
                    for (int piece = 1; piece < s.pieces; piece++)
                        sum += load(from + part * piece);
                    return sum;
                },
                [&](int a, int b, vec v) {
                    for (int lane = 0; lane < LANES; lane++)
                        dweight[((size_t)(o + lane) * s.in + i) * TAPS + a * 3 + b] = v[lane];
                });
}

}  // namespace hilum
