// Blocks of bfloat16 maps by matrix tiles, forward and backward. Tiles multiply so fast that it does not
// pay to leave out products with the gradients of losers: they are noughts here.
#pragma once

#include "pairs.hpp"
#include "tiles.hpp"

#ifdef __AMX_BF16__
namespace hilum::tiles {

inline void block_forward(const bf16* x, const float* weight, const float* bias, bf16* y,
                          uint8_t* winners, const Block& s, int threads) {
    const Filters filters(weight, s.in, s.out, false);
    const int used = 2 * s.columns, many = std::min(used, SIDE);
    Pool::run(s.films * s.rows, threads, [&](Turn& turn) {
        const Configured configured(many);
        alignas(64) float sums[4 * SUMS];
        do {
            const int film = turn.piece / s.rows, row = turn.piece % s.rows;
            for (int next = 0; next < used; next += SIDE) {
                const int first = std::min(next, used - many);  // the last once more: all are whole
                const bf16* line[4];
                for (int i = 0; i < 4; i++) line[i] = x + s.input(film, 2 * row + i, first);
                for (int block = 0; block < s.out; block += DEPTH) {
                    filters.convolve(line, block, sums);
                    for (int half = 0; half < 2; half++) {
                        const int k = block + half * SIDE;
                        const vec shift = hilum::load(bias + k);
                        const float *top = sums + half * SUMS, *bottom = top + 2 * SUMS;
                        const size_t at = s.pixel(film, row, first / 2) + k;
                        for (int i = 0; i < many / 2; i++, top += 2 * SIDE, bottom += 2 * SIDE)
                            keep(relu_pool(hilum::load(top), hilum::load(top + SIDE),
                                           hilum::load(bottom), hilum::load(bottom + SIDE), shift),
                                 y + at + (size_t)i * s.out, winners + at + (size_t)i * s.out);
                    }
                }
            }
        } while (turn.next());
    });
}


// What a strip adds to the gradient of the weights: for each tap the product of gradients, a channel a
// line, and the pixels that the tap sees, in pairs.
class WeightSums {
public:
    explicit WeightSums(const Block& s)
        : s(s),
          chunks((s.columns + SIDE - 1) / SIDE),
          pairs((size_t)SIDE * chunks + 1),
          rows(std::clamp((int)(ROOM / (4 * pairs * s.in * 2)) - 1, 1, s.rows)),
          gradients((size_t)2 * rows * chunks * s.out * DEPTH),
          pixels((size_t)(2 * rows + 2) * 2 * pairs * 2 * s.in) {}

    size_t size() const { return (size_t)s.in * s.out * TAPS; }
    // The place of a number of sums[out / 32][in / 32][TAPS][2][2][16][16].
    size_t place(int out, int in, int tap) const {
        const size_t block = (size_t)out / DEPTH * (s.in / DEPTH) + in / DEPTH;
        const int v = in % 8 / 4, lane = in % DEPTH / 8 * 4 + in % 4;  // as pairs are interleaved
        return (((block * TAPS + tap) * 2 + out % DEPTH / SIDE) * 2 + v) * SUMS + out % SIDE * SIDE +
               lane;
    }

    // Adds pooled rows from `begin` to `end` of a film.
    void add(const bf16* x, const bf16* dy, const uint8_t* winners, int film, int begin, int end,
             float* sums) const {
        for (int row = begin; row < end; row += rows) {
            const int count = std::min(rows, end - row);
            for (int i = 0; i < count; i++) turn(dy, winners, film, row + i, i);
            for (int i = 0; i < 2 * count + 2; i++) pair(x + s.input(film, 2 * row + i, 0), i);
            for (int out = 0; out < s.out; out += DEPTH)
                for (int in = 0; in < s.in; in += DEPTH)
                    for (int tap = 0; tap < TAPS; tap++)
                        add(tap, out, in, 2 * count, sums + place(out, in, tap));
        }
    }

private:
    // Gradients of a pooled row as two lines of tiles: each channel's, window by window, at the place
    // that won.
    void turn(const bf16* dy, const uint8_t* winners, int film, int row, int index) const {
        for (int chunk = 0; chunk < chunks; chunk++) {
            const int first = chunk * SIDE, width = std::min(SIDE, s.columns - first);
            const size_t at = s.pixel(film, row, first);
            for (int c = 0; c < s.out; c += SIDE) {
                __m512i v[SIDE];  // a window each, and then a channel each
                UNROLL for (int j = 0; j < SIDE; j++) {
                    v[j] = _mm512_set1_epi32(DEAD);
                    if (j < width) {
                        const size_t from = at + (size_t)j * s.out + c;
                        v[j] = _mm512_or_si512((__m512i)hilum::load(dy + from),
                                               (__m512i)load_places(winners + from));
                    }
                }
                transpose(v);
                bf16* top = gradients + tile(2 * index, chunk, c) * PART;
                bf16* bottom = gradients + tile(2 * index + 1, chunk, c) * PART;
                for (int j = 0; j < SIDE; j++, top += DEPTH, bottom += DEPTH) {
                    const __m512i won = _mm512_and_si512(v[j], _mm512_set1_epi32(7));
                    _mm512_storeu_si512(top, placed(v[j], won, 0));
                    _mm512_storeu_si512(bottom, placed(v[j], won, 2));
                }
            }
        }
    }
    static __m512i placed(__m512i v, __m512i won, int left) {
        const __mmask16 first = _mm512_cmpeq_epi32_mask(won, _mm512_set1_epi32(left));
        const __mmask16 second = _mm512_cmpeq_epi32_mask(won, _mm512_set1_epi32(left + 1));
        const __m512i high = _mm512_maskz_and_epi32(second, v, _mm512_set1_epi32(-65536));
        return _mm512_mask_srli_epi32(high, first, v, 16);
    }
    // A line of pixels in pairs: of an even one and the next, and of an odd one and the next.
    void pair(const bf16* line, int index) const {
        for (int k = 0; k < s.in; k += DEPTH) {
            const auto pixel = [&](int i) {
                return i < s.seen ? _mm512_loadu_si512(line + (size_t)i * s.in + k)
                                  : _mm512_setzero_si512();
            };
            bf16* even = pixels + (size_t)2 * index * pairs * 2 * s.in + 2 * k;
            bf16* odd = even + pairs * 2 * s.in;
            __m512i a = pixel(0);
            for (size_t i = 0; i < pairs; i++, even += 2 * s.in, odd += 2 * s.in) {
                const __m512i b = pixel(2 * i + 1), next = pixel(2 * i + 2);
                _mm512_storeu_si512(even, _mm512_unpacklo_epi16(a, b));
                _mm512_storeu_si512(even + DEPTH, _mm512_unpackhi_epi16(a, b));
                _mm512_storeu_si512(odd, _mm512_unpacklo_epi16(b, next));
                _mm512_storeu_si512(odd + DEPTH, _mm512_unpackhi_epi16(b, next));
                a = next;
            }
        }
    }
    void add(int tap, int out, int in, int lines, float* sums) const {
        const size_t apart = (size_t)4 * s.in;
        tiles::load<0>(sums, 64), tiles::load<1>(sums + SUMS, 64);
        tiles::load<2>(sums + 2 * SUMS, 64), tiles::load<3>(sums + 3 * SUMS, 64);
        for (int i = 0; i < lines; i++) {
            const int across = tap % 3;
            const bf16* pixel =
                pixels + ((size_t)(2 * (i + tap / 3) + across % 2) * pairs + across / 2) * 2 * s.in +
                2 * in;
            const bf16* gradient = gradients + tile(i, 0, out) * PART;
            for (int chunk = 0; chunk < chunks; chunk++) {
                tiles::load<4>(gradient, 64), tiles::load<5>(gradient + PART, 64);
                tiles::load<6>(pixel, apart), tiles::load<7>(pixel + DEPTH, apart);
                multiply_all();
                gradient += (size_t)s.out * DEPTH;
                pixel += (size_t)SIDE * 2 * s.in;
            }
        }
        tiles::store<0>(sums), tiles::store<1>(sums + SUMS);
        tiles::store<2>(sums + 2 * SUMS), tiles::store<3>(sums + 3 * SUMS);
    }
    size_t tile(int line, int chunk, int out) const {
        return ((size_t)line * chunks + chunk) * (s.out / SIDE) + out / SIDE;
    }

    static constexpr size_t ROOM = 128 << 10;  // bfloat16 of pairs that stay in the cache
    const Block& s;
    const int chunks;    // of 16 windows in a row
    const size_t pairs;  // of a line
    const int rows;      // pooled ones that are added together
    const Buffer<bf16> gradients, pixels;
};

// Gradients of a pooled row on the lines from which they came, in a frame of noughts.
class Lines {
public:
    explicit Lines(const Block& s)
        : s(s), length((size_t)(s.width + 4) * s.out), values(4 * length) {
        std::fill_n((bf16*)values, 4 * length, 0);
    }
    void take(const bf16* dy, const uint8_t* winners, int film, int row) const {
        bf16* top = values + (size_t)(row & 1) * 2 * length;
        if (row < 0 || row >= s.rows) {
            std::fill_n(top, 2 * length, 0);
            return;
        }
        top += 2 * s.out;
        const size_t end = s.pixel(film, row, s.columns);
        for (size_t at = s.pixel(film, row, 0); at < end; at += s.out, top += 2 * s.out)
            for (int k = 0; k < s.out; k += DEPTH) {
                const __m512i gradient = _mm512_loadu_si512(dy + at + k);
                UNROLL for (int place = 0; place < 4; place++)
                    _mm512_storeu_si512(
                        top + place / 2 * length + place % 2 * s.out + k,
                        _mm512_maskz_mov_epi16(channels_with(winners + at + k, place), gradient));
            }
    }
    // The four lines that lines 2 `row` and 2 `row` + 1 of the input have taken part in.
    void seen(int row, int column, const bf16* (&line)[4]) const {
        for (int i = 0; i < 4; i++)
            line[i] = values + (size_t)((2 * row - 2 + i) & 3) * length + (size_t)column * s.out;
    }

private:
    const Block& s;
    const size_t length;
    const Buffer<bf16> values;
};

inline void input_gradient(const Filters& filters, const bf16* dy, const uint8_t* winners, bf16* dx,
                           const Block& s, int film, int begin, int end, const Lines& lines) {
    const int many = std::min(s.width, SIDE);
    const Configured configured(many);
    alignas(64) float sums[4 * SUMS];
    lines.take(dy, winners, film, begin - 1);
    for (int row = begin; row < (end == s.rows ? (s.height + 1) / 2 : end); row++) {
        lines.take(dy, winners, film, row);
        for (int next = 0; next < s.width; next += SIDE) {
            const int first = std::min(next, s.width - many);
            const bf16* line[4];
            lines.seen(row, first, line);
            for (int block = 0; block < s.in; block += DEPTH) {
                filters.convolve(line, block, sums);
                for (int i = 0; i < 2 && 2 * row + i < s.height; i++) {
                    bf16* to = dx + s.input(film, 2 * row + i, first) + block;
                    const float* from = sums + 2 * i * SUMS;
                    for (int j = 0; j < many; j++, to += s.in, from += SIDE) {
                        hilum::store(to, hilum::load(from));
                        hilum::store(to + SIDE, hilum::load(from + SUMS));
                    }
                }
            }
        }
    }
}

inline void block_backward(const bf16* x, const float* weight, const bf16* dy,
                           const uint8_t* winners, bf16* dx, float* dweight, float* dbias,
                           const Block& s, int threads) {
    const WeightSums one(s);
    const int pieces = s.films * s.strips;
    const size_t part = one.size() + s.out;
    const Filters filters(weight, s.in, s.out, true);
    Buffer<float> partial(part * pieces);
    Pool::run(pieces, threads, [&](Turn& turn) {
        const WeightSums weights(s);
        const Lines lines(s);
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            const int begin = s.first_row(strip), end = s.first_row(strip + 1);
            float* mine = partial + part * turn.piece;
            std::fill_n(mine, one.size(), 0.0f);
            {
                const Configured configured(SIDE);
                weights.add(x, dy, winners, film, begin, end, mine);
            }
            bias_gradient(dy, winners, mine + one.size(), s, film, begin, end);
            if (dx) input_gradient(filters, dy, winners, dx, s, film, begin, end, lines);
        } while (turn.next());
    });
    Pool::run(s.out, threads, [&](Turn& turn) {
        do {
            const int o = turn.piece;
            for (int i = 0; i < s.in; i++)
                for (int tap = 0; tap < TAPS; tap++) {
                    float sum = 0;
                    const float* from = partial + one.place(o, i, tap);
                    for (int piece = 0; piece < pieces; piece++) sum += from[part * piece];
                    dweight[((size_t)o * s.in + i) * TAPS + tap] = sum;
                }
            dbias[o] = 0;
            for (int piece = 0; piece < pieces; piece++)
                dbias[o] += partial[part * piece + one.size() + o];
        } while (turn.next());
    });
}

}  // namespace hilum::tiles
#endif
