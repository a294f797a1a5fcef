// Blocks of bfloat16 maps by matrix tiles, forward and backward. Tiles multiply so fast that it does
// not pay to leave out products with the gradients of losers: they are noughts here.
#pragma once

#include "first_tiles.hpp"
#include "weight_tiles.hpp"

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

// Gradients of a pooled row on the lines from which they came, in a frame of noughts.
class Lines {
public:
    explicit Lines(const Block& s)
        : s(s), length((size_t)(s.width + 4) * s.out), values(4 * length + BEHIND * s.out) {
        std::fill_n((bf16*)values, 4 * length + BEHIND * s.out, 0);
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
    static constexpr int BEHIND = SIDE;  // pixels, which a tile reads of lines that are shorter
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
        typename Below::template Strip<FirstTiles> into(below, s);
        const Configured configured(SIDE);
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            const int begin = s.first_row(strip), end = s.first_row(strip + 1);
            float* mine = partial + part * turn.piece;
            std::fill_n(mine, one.size(), 0.0f);
            weights.add(x, dy, winners, film, begin, end, mine);
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
