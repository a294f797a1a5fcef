// The first block: with one input channel nothing but the pooled map is worth writing.
#pragma once

#include <deque>
#include <type_traits>

#include "first_integers.hpp"
#include "first_pairs.hpp"

namespace hilum {

// Winograd's F(2x2, 3x3): 16 products a tile where the plain sum has 36. A tile is one window of the
// pool, and its transform is of pixels alone, the same for all channels.
constexpr int SPOTS = 16;

// One dimension of a filter's transform.
inline void halve_filter(const vec (&g)[3], vec (&t)[4]) {
    const vec ends = (g[0] + g[2]) * 0.5f, middle = g[1] * 0.5f;
    t[0] = g[0];
    t[1] = ends + middle;
    t[2] = ends - middle;
    t[3] = g[2];
}

// weight[out][TAPS] to filters[SPOTS][out].
inline void first_filters(const float* weight, float* filters, int out) {
    for (int o = 0; o < out; o += LANES) {
        vec g[3][3];
        for (int lane = 0; lane < LANES; lane++)
            for (int tap = 0; tap < TAPS; tap++)
                g[tap / 3][tap % 3][lane] = weight[(o + lane) * TAPS + tap];
        both_ways<halve_filter, 3, 4>(
            [&](int a, int b) { return g[a][b]; },
            [&](int a, int b, vec v) { store(filters + (a * 4 + b) * out + o, v); });
    }
}

// Room for the columns of two windows each that whole vectors of them see.
inline int first_room(int columns) { return 2 * ((columns + LANES - 1) / LANES * LANES) + LANES; }

// The four lines under a row of windows to spots[columns / LANES][SPOTS][LANES]: whole vectors,
// whatever the last holds more. `half` has room for them.
inline void first_spots(const float* line, int width, int columns, float* half, float* spots) {
    const int wide = 2 * columns + 2, room = first_room(columns);
    for (int i = 0; i < wide; i++) {
        const float* d = line + i;
        const float above = d[width], below = d[2 * width];
        half[i] = d[0] - below;
        half[room + i] = above + below;
        half[2 * room + i] = below - above;
        half[3 * room + i] = above - d[3 * width];
    }
    for (int first = 0; first < columns; first += LANES, spots += SPOTS * LANES)
        for (int i = 0; i < 4; i++) {
            const float* d = half + i * room + 2 * first;
            float* t = spots + 4 * i * LANES;
            for (int j = 0; j < LANES; j++, d += 2) {
                t[j] = d[0] - d[2];
                t[LANES + j] = d[1] + d[2];
                t[2 * LANES + j] = d[2] - d[1];
                t[3 * LANES + j] = d[1] - d[3];
            }
        }
}

// A row of windows of LANES channels.
template <class T>
void first_row(const float* spots, const float* filters, int out, vec shift, int columns, T* y,
               uint8_t* winners) {
    vec filter[4][4];
    UNROLL for (int p = 0; p < SPOTS; p++) filter[p / 4][p % 4] = load(filters + p * out);
    for (int column = 0; column < columns; column++, y += out, winners += out) {
        const float* spot = spots + column / LANES * SPOTS * LANES + column % LANES;
        const auto product = [&](int i, int j) {
            return filter[i][j] * broadcast(spot[(4 * i + j) * LANES]);
        };
        vec top[4], bottom[4];
        UNROLL for (int j = 0; j < 4; j++) {
            const vec upper = product(1, j), lower = product(2, j);
            top[j] = product(0, j) + (upper + lower);
            bottom[j] = (upper - lower) - product(3, j);
        }
        const auto left = [&](const vec (&m)[4]) { return m[0] + (m[1] + m[2]); };
        const auto right = [&](const vec (&m)[4]) { return (m[1] - m[2]) - m[3]; };
        keep(relu_pool(left(top), right(top), left(bottom), right(bottom), shift), y, winners);
    }
}

template <class T>
void first_forward(const float* x, const float* weight, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int threads) {
#ifdef __AVX512VNNI__
    if constexpr (std::is_same_v<T, bf16>)
        return first_in_integers(x, weight, bias, y, winners, s, threads);
#endif
    Buffer<float> filters((size_t)SPOTS * s.out);
    first_filters(weight, filters, s.out);
    Pool::run(s.films * s.rows, threads, [&](Turn& turn) {
        const int room = first_room(s.columns);
        const Buffer<float> half((size_t)4 * room), spots((size_t)SPOTS * room);
        std::fill_n((float*)half, 4 * room, 0.f);
        do {
            const int film = turn.piece / s.rows, row = turn.piece % s.rows;
            first_spots(x + s.input(film, 2 * row, 0), s.width, s.columns, half, spots);
            for (int block = 0; block < s.out; block += LANES) {
                const size_t at = s.pixel(film, row, 0) + block;
                first_row(spots, filters + block, s.out, load(bias + block), s.columns, y + at,
                          winners + at);
            }
        } while (turn.next());
    });
}

// Pixels of a 4x4 patch, so that each channel can take those that its winner has seen.
struct Patch {
    Patch(const float* corner, int width) {
#if AVX512
        pixels = _mm512_castps128_ps512(_mm_loadu_ps(corner));  // all in one register
        pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + width), 1);
        pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + 2 * width), 2);
        pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + 3 * width), 3);
#else
        for (int i = 0; i < 3; i++, corner += width)
            pixels[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(corner)),
                                             _mm_loadu_ps(corner + width), 1);
#endif
    }
    // At a tap of the winner that stands at this place of the patch.
    vec seen(ivec place, int tap) const {
#if AVX512
        const ivec which = place + (tap / 3 * 4 + tap % 3);
        return (vec)_mm512_permutexvar_ps((__m512i)which, pixels);
#else
        return (vec)_mm256_permutevar8x32_ps(pixels[tap / 3], (__m256i)(place + tap % 3));
#endif
    }
#if AVX512
    __m512 pixels;
#else
    __m256 pixels[3];  // two lines each
#endif
};

// The gradients one window at a time, in float.
template <class T>
class FirstSingle {
public:
    static constexpr int CHANNELS = WIDE * LANES;

    explicit FirstSingle(const Block& s) : s(s) {}

    void begin() {
        for (auto& all : sum)
            for (vec& some : all) some = vec{};
    }
    void add(const float* film, int row, const T* dy, const uint8_t* winners) {
        const float* seen = film + (size_t)2 * row * s.width;
        vec sum[WIDE][TAPS + 1];  // in registers for a row
        UNROLL for (int i = 0; i < WIDE * (TAPS + 1); i++)
            sum[i / (TAPS + 1)][i % (TAPS + 1)] = this->sum[i / (TAPS + 1)][i % (TAPS + 1)];
        for (int column = 0; column < s.columns; column++, seen += 2, dy += s.out, winners += s.out) {
            const Patch patch(seen, s.width);
            UNROLL for (int v = 0; v < WIDE; v++) {
                const ivec winner = load_places(winners + v * LANES);
                const ivec place = (winner >> 1) * 4 + (winner & 1);
                const vec all = load(dy + v * LANES);
                const vec gradient = winner == DEAD ? vec{} : all;
                sum[v][TAPS] += gradient;
                UNROLL for (int tap = 0; tap < TAPS; tap++)
                    sum[v][tap] += gradient * patch.seen(place, tap);
            }
        }
        UNROLL for (int i = 0; i < WIDE * (TAPS + 1); i++)
            this->sum[i / (TAPS + 1)][i % (TAPS + 1)] = sum[i / (TAPS + 1)][i % (TAPS + 1)];
    }
    // To sums[TAPS + 1][apart], the last of them the bias's.
    void end(float* sums, int apart) const {
        for (int v = 0; v < WIDE; v++)
            for (int t = 0; t <= TAPS; t++) store(sums + t * apart + v * LANES, sum[v][t]);
    }

private:
    const Block& s;
    vec sum[WIDE][TAPS + 1];
};

#ifdef __AVX512BF16__
template <class T>
using FirstSums = std::conditional_t<std::is_same_v<T, bf16>, FirstPairs, FirstSingle<T>>;
#else
template <class T>
using FirstSums = FirstSingle<T>;
#endif

// A strip's share of the gradients, one row of windows after another.
template <class T, class Sums = FirstSums<T>>
class FirstStrip {
public:
    explicit FirstStrip(const Block& s) : s(s) {
        for (int block = 0; block < s.out; block += Sums::CHANNELS) blocks.emplace_back(s);
    }
    void begin(const float* film) {
        this->film = film;
        for (auto& block : blocks) block.begin();
    }
    void add(int row, const T* dy, const uint8_t* winners) {
        for (auto& block : blocks) {
            block.add(film, row, dy, winners);
            dy += Sums::CHANNELS, winners += Sums::CHANNELS;
        }
    }
    // To sums[TAPS + 1][out], the last of them the bias's.
    void end(float* sums) const {
        for (const auto& block : blocks) {
            block.end(sums, s.out);
            sums += Sums::CHANNELS;
        }
    }

private:
    const Block& s;
    std::deque<Sums> blocks;  // of channels; they do not move
    const float* film;
};

// The strips' shares[pieces][TAPS + 1][out], all together.
inline void first_together(const float* shares, int pieces, int out, float* dweight, float* dbias) {
    for (int c = 0; c < out; c++)
        for (int tap = 0; tap <= TAPS; tap++) {
            float sum = 0;
            for (int i = 0; i < pieces; i++)
                sum += shares[((size_t)i * (TAPS + 1) + tap) * out + c];
            (tap < TAPS ? dweight[c * TAPS + tap] : dbias[c]) = sum;
        }
}

template <class T>
void first_backward(const float* x, const T* dy, const uint8_t* winners, float* dweight,
                    float* dbias, const Block& s, int threads) {
    const int pieces = s.films * s.strips;
    const size_t share = (size_t)(TAPS + 1) * s.out;
    Buffer<float> shares(share * pieces);
    Pool::run(pieces, threads, [&](Turn& turn) {
        FirstStrip<T> sums(s);
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            sums.begin(x + s.input(film, 0, 0));
            for (int row = s.first_row(strip); row < s.first_row(strip + 1); row++)
                sums.add(row, dy + s.pixel(film, row, 0), winners + s.pixel(film, row, 0));
            sums.end(shares + share * turn.piece);
        } while (turn.next());
    });
    first_together(shares, pieces, s.out, dweight, dbias);
}

}  // namespace hilum
