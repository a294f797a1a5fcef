// The first block's gradients by matrix tiles, in bfloat16.
#pragma once

#include "first_pairs.hpp"
#include "tiles.hpp"

#if MATRIX_TILES
namespace hilum::tiles {

// What FirstPairs computes: a tile multiplies the gradients of 16 windows, noughts where others won,
// by the pixels that each tap has seen. Needs tiles of 16 lines.
class FirstTiles {
public:
    static constexpr int CHANNELS = GROUP;

    explicit FirstTiles(const Block& s)
        : s(s),
          room((s.columns + SIDE - 1) / SIDE * DEPTH + DEPTH),
          rounded((size_t)room),
          lines((size_t)(SLOTS * ROWS + SIDE) * room),
          gradients(4 * PART) {
        std::fill_n((bf16*)rounded, room, 0);
        std::fill_n((bf16*)lines, (SLOTS * ROWS + SIDE) * room, 0);
        for (int slot = 0; slot < SLOTS; slot++) std::fill_n(line(slot, ONES), room, ONE);
    }

    void begin() {
        std::fill_n(sums, 2 * SUMS, 0.f);
        known = 0;
    }

    // Adds a row of windows. Rows come one after another.
    void add(const float* film, int row, const bf16* dy, const uint8_t* winners) {
        for (known = std::max(known, 2 * row); known < 2 * row + 4; known++)
            take(film + (size_t)known * s.width, known);
        using S = Sums<1, 2>;
        S::load(sums);
        for (int column = 0; column < s.columns; column += SIDE) {
            const int width = std::min(SIDE, s.columns - column);
            for (int i = 0; i < width; i++, dy += s.out, winners += s.out) place(dy, winners, i);
            for (int i = width; i < SIDE; i++) empty(i);
            for (int lower = 0; lower < 2; lower++) {
                const bf16* seen = line((2 * row + lower) % 4, 0) + 2 * column;
                S::load_left(seen, 0, (size_t)room * sizeof(bf16));
                S::load_right(gradients + 2 * lower * PART, PART, 64);
                S::multiply();
            }
        }
        S::store(sums);
    }

    // To sums[TAPS + 1][apart], the last of them the bias's.
    void end(float* to, int apart) const {
        for (int t = 0; t <= TAPS; t++) {
            const float* from = sums + (t < TAPS ? t / 3 * ROWS + t % 3 : ONES) * SIDE;
            for (int v = 0; v < 2; v++)
                for (int lane = 0; lane < SIDE; lane++)
                    to[t * apart + FirstPairs::channel(v, lane)] = from[v * SUMS + lane];
        }
    }

private:
    // A line of the film as its three taps see it, and ones, by which the bias's gradient is summed.
    void take(const float* film, int number) {
        round_evenly(film, number, s.seen, rounded);
        for (int slot = number % 4; slot < SLOTS; slot += 4)
            for (int tap = 0; tap < 3; tap++)
                std::memcpy(line(slot, tap), rounded + tap, (room - tap) * sizeof(bf16));
    }
    bf16* line(int slot, int tap) const { return lines + (size_t)(slot * ROWS + tap) * room; }

    // The gradients of a window, in pairs: of the upper two places and of the lower two.
    void place(const bf16* dy, const uint8_t* winners, int window) {
        prefetch(dy + AHEAD * s.out, CHANNELS * sizeof(bf16), 0, 1);
        prefetch(winners + AHEAD * s.out, CHANNELS, 0, 1);
        const __m512i gradient = _mm512_loadu_si512(dy);
        bf16* to = gradients + window * DEPTH;
        UNROLL for (int lower = 0; lower < 2; lower++, to += 2 * PART) {
            const auto won = [&](int place) {
                return _mm512_maskz_mov_epi16(channels_with(winners, 2 * lower + place), gradient);
            };
            const __m512i left = won(0), right = won(1);
            _mm512_store_si512(to, _mm512_unpacklo_epi16(left, right));
            _mm512_store_si512(to + PART, _mm512_unpackhi_epi16(left, right));
        }
    }
    void empty(int window) {
        for (int i = 0; i < 4; i++)
            _mm512_store_si512(gradients + i * PART + window * DEPTH, __m512i{});
    }

    static constexpr int ROWS = 4, ONES = 3;  // of a line: three taps, ones
    static constexpr int SLOTS = 6;           // lines, of which three follow each other anywhere
    static constexpr int AHEAD = 32;          // windows
    static constexpr bf16 ONE = 0x3f80;
    const Block& s;
    const int room;
    const Buffer<bf16> rounded;    // [room]
    const Buffer<bf16> lines;      // [SLOTS][ROWS][room]: line i at i % 4, and 4 behind it
    const Buffer<bf16> gradients;  // [2][2][16 windows][32]
    int known;                     // lines of the film that were taken, from the first on
    alignas(64) float sums[2 * SUMS];  // [2][16][16]: by rows of lines
};

}  // namespace hilum::tiles
#endif
