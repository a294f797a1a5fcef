// The first block's gradients, two windows at a time, in bfloat16.
#pragma once

#include "layers.hpp"

#ifdef __AVX512BF16__
namespace hilum {

// The pixels of a line to bfloat16, up or down by a lattice that fills every interval evenly, along
// lines, columns and diagonals, by one pixel and by two: what is lost by even areas, the same at each
// pixel if rounded to nearest, cancels out.
inline void round_evenly(const float* line, int number, int count, bf16* to) {
    ivec place;
    for (int lane = 0; lane < LANES; lane++) place[lane] = lane;
    for (int i = 0; i < count; i += LANES) {
        const vec exact = load_some(line + i, count - i);
        const ivec carry = ((place + i) * 22373 + number * 50277) & 0xffff;
        const ivec bits = (ivec)exact + (exact == exact ? carry : ivec{});
        _mm512_mask_cvtepi32_storeu_epi16(to + i, first_lanes(count - i), (__m512i)(bits >> 16));
    }
}

// Each lane stands for a filter: it multiplies its gradients of two windows by the pixels that its
// winners have seen, and adds both to a float.
class FirstPairs {
public:
    static constexpr int CHANNELS = GROUP;

    // The channel that a lane of the sums stands for: vectors of channels are interleaved.
    static int channel(int v, int lane) { return lane / 4 * 8 + v * 4 + lane % 4; }

    explicit FirstPairs(const Block& s) : s(s), room(s.seen + 8), lines((size_t)4 * room) {
        std::fill_n((bf16*)lines, 4 * room, 0);
    }

    void begin() {
        for (auto& both : sum) both[0] = both[1] = vec{};
        known = 0;
    }

    // Adds a row of windows. Rows come one after another.
    void add(const float* film, int row, const bf16* dy, const uint8_t* winners) {
        for (known = std::max(known, 2 * row); known < 2 * row + 4; known++)
            round_evenly(film + (size_t)known * s.width, known, s.seen, lines + known % 4 * room);
        const bf16* line[4];
        for (int i = 0; i < 4; i++) line[i] = lines + (2 * row + i) % 4 * room;
        vec sum[TAPS + 1][2];  // in registers for a row
        UNROLL for (int t = 0; t <= TAPS; t++)
            sum[t][0] = this->sum[t][0], sum[t][1] = this->sum[t][1];
        for (int column = 0; column < s.columns; column += 2) {
            const size_t at = (size_t)column * s.out;
            const bool last = column + 1 == s.columns;  // without a neighbour: itself, times nought
            const size_t next = last ? at : at + s.out;
            prefetch_next(dy + at, winners + at);
            const __m256i left = _mm256_loadu_si256((const __m256i*)(winners + at));
            const __m256i right = _mm256_loadu_si256((const __m256i*)(winners + next));
            const __m512i one = gradients(dy + at, left, ~0u);
            const __m512i other = gradients(dy + next, right, last ? 0 : ~0u);
            const __m512i first = places(left, 0), second = places(right, 2);
            const __m512i gradient[2] = {_mm512_unpacklo_epi16(one, other),
                                         _mm512_unpackhi_epi16(one, other)};
            const __m512i place[2] = {_mm512_unpacklo_epi16(first, second),
                                      _mm512_unpackhi_epi16(first, second)};
            const __m512i pixels = eight_columns(line, 2 * column);
            UNROLL for (int tap = 0; tap < TAPS; tap++)
                UNROLL for (int v = 0; v < 2; v++) {
                    const __m512i to = _mm512_set1_epi16(tap / 3 * 8 + tap % 3);
                    const __m512i which = _mm512_add_epi16(place[v], to);
                    add(_mm512_permutexvar_epi16(which, pixels), gradient[v], sum[tap][v]);
                }
            UNROLL for (int v = 0; v < 2; v++)
                add(_mm512_set1_epi16(ONE), gradient[v], sum[TAPS][v]);
        }
        UNROLL for (int t = 0; t <= TAPS; t++)
            this->sum[t][0] = sum[t][0], this->sum[t][1] = sum[t][1];
    }

    // To sums[TAPS + 1][apart], the last of them the bias's.
    void end(float* sums, int apart) const {
        for (int t = 0; t <= TAPS; t++)
            for (int v = 0; v < 2; v++)
                for (int lane = 0; lane < LANES; lane++)
                    sums[t * apart + channel(v, lane)] = sum[t][v][lane];
    }

private:
    void prefetch_next(const bf16* dy, const uint8_t* winners) const {
        prefetch(dy + AHEAD * s.out, 2 * CHANNELS * sizeof(bf16), 0, 1);
        prefetch(winners + AHEAD * s.out, 2 * CHANNELS, 0, 1);
    }
    // Those of units that live.
    static __m512i gradients(const bf16* dy, __m256i winners, uint32_t wanted) {
        const uint32_t alive = _mm256_cmpneq_epi8_mask(winners, _mm256_set1_epi8(DEAD));
        return _mm512_maskz_loadu_epi16(alive & wanted, dy);
    }
    // Where in eight columns of four lines each winner stands, as numbers of 16 bits.
    static __m512i places(__m256i winners, char column) {
        const __m256i place = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            column, column + 1, column + 8, column + 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
        return _mm512_cvtepu8_epi16(_mm256_shuffle_epi8(place, winners));
    }
    static __m512i eight_columns(const bf16* const (&line)[4], int column) {
        const auto quarter = [&](int i) {
            return _mm_loadu_si128((const __m128i*)(line[i] + column));
        };
        __m512i all = _mm512_castsi128_si512(quarter(0));
        all = _mm512_inserti32x4(all, quarter(1), 1);
        all = _mm512_inserti32x4(all, quarter(2), 2);
        return _mm512_inserti32x4(all, quarter(3), 3);
    }
    static void add(__m512i pixels, __m512i gradients, vec& sum) {
        sum = held((vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pixels, (__m512bh)gradients));
    }

    static constexpr int AHEAD = 32;  // windows
    static constexpr int ONE = 0x3f80;
    const Block& s;
    const int room;
    const Buffer<bf16> lines;  // [4][room]: line i of the film stands at i % 4
    int known;                 // lines of the film that were rounded, from the first on
    vec sum[TAPS + 1][2];
};

}  // namespace hilum
#endif
