// Blocks of bfloat16 maps by matrix tiles, forward and backward. Tiles multiply so fast that it does
// not pay to leave out products with the gradients of losers: they are noughts here.
#pragma once

#include "pairs.hpp"
#include "tiles.hpp"

#if MATRIX_TILES
namespace hilum::tiles {

// Convolves tile after tile, and meanwhile finishes the sums of the one before: vectors have time
// while tiles multiply. `Goal` is where a tile's sums go to; its finish(sums, share, shares) does a
// share of that.
template <class Goal>
class Pipeline {
public:
    explicit Pipeline(const Filters& filters) : f(filters) {}
    // Two rows of up to 16 outputs of 32 channels from `block` on: sums[row][2][16][16]. `line`:
    // four lines of inputs, each from the first output's first tap on.
    void add(const bf16* const (&line)[4], int block, const Goal& goal) {
        using S = Sums<2, 2>;
        const size_t apart = (size_t)f.in * sizeof(bf16);
        S::zero();
        for (int step = 0, at = 0; step < f.steps; step++, at += DEPTH) {
            tiles::load<4>(line[0] + at, apart), tiles::load<5>(line[1] + at, apart);
            S::load_right(f.right(block, 0, step), f.next(), 64);
            S::multiply();
            tiles::load<4>(line[2] + at, apart);  // the second row's; the first row's is in 5
            S::load_right(f.right(block, 1, step), f.next(), 64);
            S::multiply<5, 4>();
            tiles::load<5>(line[3] + at, apart);
            S::load_right(f.right(block, 2, step), f.next(), 64);
            S::multiply();
            if (begun) last.finish(sums[!turn], step, f.steps);
        }
        S::store(sums[turn]);
        last = goal, begun = true, turn = !turn;
    }
    void end() {
        if (begun) last.finish(sums[!turn], 0, 1);
        begun = false;
    }

private:
    const Filters& f;
    Goal last;
    bool begun = false, turn = false;
    alignas(64) float sums[2][4 * SUMS];
};

struct ToPool {
    void finish(const float* sums, int share, int shares) const {
        for (int line = 0; line < 2; line++) prefetch(ahead[line], bytes, share, shares);
        for (int i = windows * share / shares; i < windows * (share + 1) / shares; i++)
            UNROLL for (int half = 0; half < 2; half++) {
                const float* top = sums + half * SUMS + i * 2 * SIDE;
                const float* bottom = top + 2 * SUMS;
                const size_t at = (size_t)i * out + half * SIDE;
                keep(relu_pool(hilum::load(top), hilum::load(top + SIDE), hilum::load(bottom),
                               hilum::load(bottom + SIDE), hilum::load(bias + half * SIDE)),
                     y + at, winners + at);
            }
    }
    int windows, out;
    const float* bias;
    bf16* y;
    uint8_t* winners;
    const bf16* ahead[2];  // lines that come next
    size_t bytes;
};

inline void block_forward(const bf16* x, const float* weight, const float* bias, bf16* y,
                          uint8_t* winners, const Block& s, int threads) {
    const Filters filters(weight, s.in, s.out, false);
    const int used = 2 * s.columns, many = std::min(used, SIDE);
    Pool::run(s.films * s.strips, threads, [&](Turn& turn) {
        const Configured configured(many);
        Pipeline<ToPool> pipeline(filters);
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            for (int row = s.first_row(strip); row < s.first_row(strip + 1); row++)
                for (int next = 0; next < used; next += SIDE) {
                    const int first = std::min(next, used - many);  // the last may overlap
                    const bf16 *line[4], *ahead[2];
                    for (int i = 0; i < 4; i++) line[i] = x + s.input(film, 2 * row + i, first);
                    for (int i = 0; i < 2; i++) ahead[i] = line[i] + 4 * (size_t)s.width * s.in;
                    for (int block = 0; block < s.out; block += DEPTH) {
                        const size_t at = s.pixel(film, row, first / 2) + block;
                        pipeline.add(line, block,
                                     {many / 2, s.out, bias + block, y + at, winners + at,
                                      {ahead[0], ahead[1]},
                                      block ? 0 : (size_t)many * s.in * sizeof(bf16)});
                    }
                }
            pipeline.end();
        } while (turn.next());
    });
}

// What a strip adds to the gradient of the weights: for each tap the product of gradients, a channel
// a line, and the pixels that the tap sees, in pairs. Few columns of a few rows at a time, so that
// both stay in the fastest cache.
class WeightSums {
public:
    explicit WeightSums(const Block& s)
        : s(s),
          gradients((size_t)LINES * s.out * DEPTH),
          pixels((size_t)(LINES + 2) * 2 * PAIRS * 2 * s.in) {}

    size_t size() const { return (size_t)s.in * s.out * TAPS; }
    // The place of a number of sums[out / 32][in / 32][TAPS][2][2][16][16].
    size_t place(int out, int in, int tap) const {
        const size_t block = (size_t)out / DEPTH * (s.in / DEPTH) + in / DEPTH;
        const int v = in % 8 / 4, lane = in % DEPTH / 8 * 4 + in % 4;  // as pairs are interleaved
        return (((block * TAPS + tap) * 2 + out % DEPTH / SIDE) * 2 + v) * SUMS +
               out % SIDE * SIDE + lane;
    }

    // Adds pooled rows from `begin` to `end` of a film.
    void add(const bf16* x, const bf16* dy, const uint8_t* winners, int film, int begin, int end,
             float* sums) const {
        for (int row = begin; row < end; row += LINES / 2)
            for (int column = 0; column < s.columns; column += SIDE) {
                const int rows = std::min(LINES / 2, end - row);
                for (int i = 0; i < rows; i++) turn(dy, winners, film, row + i, column, i);
                for (int i = 0; i < 2 * rows + 2; i++)
                    pair(x + s.input(film, 2 * row + i, 0), 2 * column, i);
                for (int out = 0; out < s.out; out += DEPTH)
                    for (int in = 0; in < s.in; in += DEPTH)
                        for (int tap : {0, 2, 3, 5, 6, 8, 1, 4, 7})  // of even pairs, of odd ones
                            multiply(tap, out, in, 2 * rows, sums + place(out, in, tap));
            }
    }

private:
    // Gradients of 16 windows of a pooled row as two lines of tiles: each channel's, window by
    // window, at the place that won.
    void turn(const bf16* dy, const uint8_t* winners, int film, int row, int column,
              int index) const {
        const int width = std::min(SIDE, s.columns - column);
        const size_t at = s.pixel(film, row, column);
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
            bf16* top = gradients + (size_t)2 * index * s.out * DEPTH + c * DEPTH;
            for (int j = 0; j < SIDE; j++, top += DEPTH) {
                const __m512i won = _mm512_and_si512(v[j], _mm512_set1_epi32(7));
                _mm512_storeu_si512(top, placed(v[j], won, 0));
                _mm512_storeu_si512(top + (size_t)s.out * DEPTH, placed(v[j], won, 2));
            }
        }
    }
    static __m512i placed(__m512i v, __m512i won, int left) {
        const __mmask16 first = _mm512_cmpeq_epi32_mask(won, _mm512_set1_epi32(left));
        const __mmask16 second = _mm512_cmpeq_epi32_mask(won, _mm512_set1_epi32(left + 1));
        const __m512i high = _mm512_maskz_and_epi32(second, v, _mm512_set1_epi32(-65536));
        return _mm512_mask_srli_epi32(high, first, v, 16);
    }
    // Pixels of a line in pairs: of an even one and the next, and of an odd one and the next.
    void pair(const bf16* line, int column, int index) const {
        for (int k = 0; k < s.in; k += DEPTH) {
            const auto pixel = [&](int i) {
                return column + i < s.seen
                           ? _mm512_loadu_si512(line + (size_t)(column + i) * s.in + k)
                           : _mm512_setzero_si512();
            };
            bf16 *even = pixels + at(index, 0) + 2 * k, *odd = pixels + at(index, 1) + 2 * k;
            __m512i a = pixel(0);
            for (int i = 0; i < PAIRS; i++, even += 2 * s.in, odd += 2 * s.in) {
                const __m512i b = pixel(2 * i + 1), next = pixel(2 * i + 2);
                _mm512_storeu_si512(even, _mm512_unpacklo_epi16(a, b));
                _mm512_storeu_si512(even + DEPTH, _mm512_unpackhi_epi16(a, b));
                _mm512_storeu_si512(odd, _mm512_unpacklo_epi16(b, next));
                _mm512_storeu_si512(odd + DEPTH, _mm512_unpackhi_epi16(b, next));
                a = next;
            }
        }
    }
    void multiply(int tap, int out, int in, int lines, float* sums) const {
        const size_t apart = (size_t)4 * s.in;
        const int down = tap / 3, across = tap % 3;
        const bf16* gradient = gradients + (size_t)out * DEPTH;
        const bf16* pixel = pixels + at(down, across % 2) + (across / 2) * 2 * s.in + 2 * in;
        using S = Sums<2, 2>;
        S::load(sums);
        for (int i = 0; i < lines; i++, gradient += (size_t)s.out * DEPTH, pixel += at(1, 0)) {
            S::load_left(gradient, PART, 64);
            S::load_right(pixel, DEPTH, apart);
            S::multiply();
        }
        S::store(sums);
    }
    size_t at(int line, int odd) const { return (size_t)(2 * line + odd) * PAIRS * 2 * s.in; }

    static constexpr int LINES = 8;         // of gradients
    static constexpr int PAIRS = SIDE + 1;  // of pixels that 16 windows see
    const Block& s;
    const Buffer<bf16> gradients, pixels;  // [LINES][out][32], [LINES + 2][2][PAIRS][2 in]
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

struct ToInput {
    void finish(const float* sums, int share, int shares) const {
        for (int i = pixels * share / shares; i < pixels * (share + 1) / shares; i++)
            for (int row = 0; row < rows; row++) {
                const float* from = sums + row * 2 * SUMS + i * SIDE;
                bf16* to = dx + row * line + (size_t)i * in;
                hilum::store(to, hilum::load(from));
                hilum::store(to + SIDE, hilum::load(from + SUMS));
            }
    }
    int pixels, rows, in;
    bf16* dx;
    size_t line;
};

template <class Strip>
void input_gradient(const bf16* dy, const uint8_t* winners, const Block& s, int film, int begin,
                    int end, const Lines& lines, Strip& below, Pipeline<ToInput>& pipeline) {
    const int many = std::min(s.width, SIDE);
    const Configured configured(many);
    lines.take(dy, winners, film, begin - 1);
    const int last = (end == s.rows ? (s.height + 1) / 2 : end) - 1;
    for (int row = begin; row <= last; row++) {
        lines.take(dy, winners, film, row);
        const int count = std::min(2, s.height - 2 * row);
        bf16* dx = below.lines(2 * row);
        for (int next = 0; next < s.width; next += SIDE) {
            const int first = std::min(next, s.width - many);
            const bf16* line[4];
            lines.seen(row, first, line);
            for (int block = 0; block < s.in; block += DEPTH)
                pipeline.add(line, block,
                             {many, count, s.in, dx + (size_t)first * s.in + block,
                              (size_t)s.width * s.in});
        }
        if (row > begin) below.whole(2 * row - 2, 2);  // the last tile of this row is not done
    }
    pipeline.end();
    below.whole(2 * last, std::min(2, s.height - 2 * last));
}

template <class Below>
void block_backward(const bf16* x, const float* weight, const bf16* dy, const uint8_t* winners,
                    const Below& below, float* dweight, float* dbias, const Block& s,
                    int threads) {
    const WeightSums one(s);
    const int pieces = s.films * s.strips;
    const size_t part = one.size() + s.out;
    const Filters filters(weight, s.in, s.out, true);
    Buffer<float> partial(part * pieces);
    Pool::run(pieces, threads, [&](Turn& turn) {
        const WeightSums weights(s);
        const Lines lines(s);
        Pipeline<ToInput> pipeline(filters);
        typename Below::Strip into(below, s);
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
            if (!below.wanted()) continue;
            into.begin(film);
            input_gradient(dy, winners, s, film, begin, end, lines, into, pipeline);
            into.end(turn.piece);
        } while (turn.next());
    });
    Pool::run(one.size() / SUMS, threads, [&](Turn& turn) {
        do {
            float* total = partial + (size_t)turn.piece * SUMS;
            for (int piece = 1; piece < pieces; piece++)
                for (int i = 0; i < SUMS; i += LANES)
                    hilum::store(total + i, hilum::load(total + i) +
                                                hilum::load(total + part * piece + i));
        } while (turn.next());
    });
    for (int o = 0; o < s.out; o++) {
        for (int i = 0; i < s.in; i++)
            for (int tap = 0; tap < TAPS; tap++)
                dweight[((size_t)o * s.in + i) * TAPS + tap] = partial[one.place(o, i, tap)];
        dbias[o] = 0;
        for (int piece = 0; piece < pieces; piece++)
            dbias[o] += partial[part * piece + one.size() + o];
    }
}

}  // namespace hilum::tiles
#endif
