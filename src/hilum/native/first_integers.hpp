// The first block's products for bfloat16 maps, in integers of 16 bits: a processor that multiplies
// pairs of them needs five instructions for a sum of nine, and no transforms. The lines under a row of
// windows share a scale, as a filter does: the largest of them keep more bits than the result. Sums
// are exact.
#pragma once

#include "integers.hpp"

#ifdef __AVX512VNNI__
namespace hilum {

inline int32_t pair(int low, int high) { return (int32_t)((low & 0xffff) | (uint32_t)high << 16); }

struct FirstFilters {
    // The taps of the upper two lines, column by column; then the third line's two and one.
    static constexpr int PAIRS = 5;

    FirstFilters(const float* weight, int out)
        : out(out), pairs((size_t)PAIRS * out), back((size_t)out) {
        for (int o = 0; o < out; o++) {
            const float* g = weight + o * TAPS;
            ivec bits{};
            for (int tap = 0; tap < TAPS; tap++) bits = larger_magnitude(bits, broadcast(g[tap]));
            const float most = from_bits(bits[0]);
            float ratio = 0;
            for (int tap = 0; tap < TAPS; tap++) ratio += std::abs(g[tap]) / most;
            const Scale scale(most, ratio, TAPS);
            const auto whole = [&](int tap) { return scale.whole(g[tap]); };
            for (int j = 0; j < 3; j++) pairs[j * out + o] = pair(whole(j), whole(3 + j));
            pairs[3 * out + o] = pair(whole(6), whole(7));
            pairs[4 * out + o] = pair(whole(8), 0);
            back[o] = scale.back;
        }
    }
    const int out;
    const Buffer<int32_t> pairs;  // [PAIRS][out]
    const Buffer<float> back;     // [out]
};

// The four lines under a row of windows.
class FirstLines {
public:
    explicit FirstLines(const Block& s)
        : s(s),
          room((s.seen + PACK) / LANES * LANES),
          single((size_t)4 * room),
          stacked((size_t)2 * room) {
        std::fill_n((int16_t*)single, 4 * room, 0);
    }
    // Returns what brings them back.
    float take(const float* film) {
        ivec most{};
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < s.seen; j += LANES)
                most = larger_magnitude(most, load_some(film + i * s.width + j, s.seen - j));
        const Scale scale(from_bits(_mm512_reduce_max_epi32((__m512i)most)), largest_of(TAPS));
        for (int j = 0; j < s.seen; j += LANES) {
            const int many = s.seen - j;
            __m512i whole[4];
            UNROLL for (int i = 0; i < 4; i++) {
                const vec pixels = load_some(film + i * s.width + j, many);
                whole[i] = _mm512_cvtps_epi32((__m512)(pixels * scale.there));
                _mm512_mask_cvtepi32_storeu_epi16(single + i * room + j, first_lanes(many), whole[i]);
            }
            UNROLL for (int i = 0; i < 2; i++)
                _mm512_storeu_si512(stacked + i * room + j, pairs(whole[i], whole[i + 1]));
        }
        return scale.back;
    }
    // Under the upper or lower windows' sums: two lines, a pixel with that below; and the third.
    const int32_t* two(int line) const { return stacked + line * room; }
    const int16_t* third(int line) const { return single + (line + 2) * room; }

private:
    // Of each lane the lower 16 bits, the second's above.
    static __m512i pairs(__m512i first, __m512i second) {
        return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(second, 16));
    }
    const Block& s;
    const int room;
    const Buffer<int16_t> single;   // [4][room], nought behind what is seen
    const Buffer<int32_t> stacked;  // [2][room]
};

// A pair of pixels for all channels.
inline __m512i both(const void* pixels) {
    int bits;
    std::memcpy(&bits, pixels, sizeof bits);
    return (__m512i)held((ivec)_mm512_set1_epi32(bits));
}

// What was found larger in a window of two vectors of channels, and where ReLU cut off.
struct Found {
    __mmask16 top_right[2], bottom_right[2], bottom[2], dead[2];

    // Winners as relu_pool numbers them.
    void store(uint8_t* winners) const {
        const auto all = [](const __mmask16 (&m)[2]) { return _mm512_kunpackw(m[1], m[0]); };
        const auto number = [](int place) { return _mm256_set1_epi8((char)place); };
        const __m256i top = _mm256_maskz_mov_epi8(all(top_right), number(1));
        __m256i winner = _mm256_mask_mov_epi8(number(2), all(bottom_right), number(3));
        winner = _mm256_mask_mov_epi8(top, all(bottom), winner);
        winner = _mm256_mask_mov_epi8(winner, all(dead), number(DEAD));
        _mm256_storeu_si256((__m256i*)winners, winner);
    }
};

// The sums [vector][line][column] of a window to what is kept of it.
inline void keep_window(const __m512i (&sum)[2][2][2], const vec (&factor)[2], const vec (&shift)[2],
                        bf16* y, uint8_t* winners) {
    Found found;
    UNROLL for (int v = 0; v < 2; v++) {
        const auto& [upper, lower] = sum[v];
        const __m512i top = _mm512_max_epi32(upper[0], upper[1]);
        const __m512i bottom = _mm512_max_epi32(lower[0], lower[1]);
        found.top_right[v] = _mm512_cmpgt_epi32_mask(upper[1], upper[0]);
        found.bottom_right[v] = _mm512_cmpgt_epi32_mask(lower[1], lower[0]);
        found.bottom[v] = _mm512_cmpgt_epi32_mask(bottom, top);
        const vec most = (vec)_mm512_cvtepi32_ps(_mm512_max_epi32(top, bottom));
        const vec best = most * factor[v] + shift[v];
        found.dead[v] = _mm512_cmp_ps_mask((__m512)best, __m512{}, _CMP_LE_OQ);
        store(y + v * LANES, (vec)_mm512_mask_mov_ps((__m512)best, found.dead[v], __m512{}));
    }
    found.store(winners);
}

// A row of windows of GROUP channels.
inline void first_row(const FirstLines& lines, float back, const FirstFilters& filters, int block,
                      const float* bias, int columns, bf16* y, uint8_t* winners) {
    const int out = filters.out;
    constexpr int PAIRS = FirstFilters::PAIRS;
    __m512i g[2][PAIRS];
    vec factor[2], shift[2];
    for (int v = 0; v < 2; v++) {
        const int at = block + v * LANES;
        for (int p = 0; p < PAIRS; p++) g[v][p] = _mm512_loadu_si512(filters.pairs + p * out + at);
        factor[v] = load(filters.back + at) * back;
        shift[v] = load(bias + at);
    }
    for (int column = 0; column < columns; column++, y += out, winners += out) {
        __m512i sum[2][2][2];
        UNROLL for (int i = 0; i < 2; i++) {
            const int32_t* two = lines.two(i) + 2 * column;
            const int16_t* third = lines.third(i) + 2 * column;
            UNROLL for (int v = 0; v < 2; v++)
                sum[v][i][0] = sum[v][i][1] = _mm512_setzero_si512();
            UNROLL for (int j = 0; j < 4; j++) {
                const __m512i stacked = both(two + j), beside = both(third + j);
                UNROLL for (int v = 0; v < 2; v++) {
                    const auto add = [&](int right, __m512i pixels, int taps) {
                        __m512i& to = sum[v][i][right];
                        to = _mm512_dpwssd_epi32(to, pixels, g[v][taps]);
                    };
                    if (j < 3) add(0, stacked, j);
                    if (j > 0) add(1, stacked, j - 1);
                    add(j % 2, beside, j < 2 ? 3 : 4);
                }
            }
        }
        keep_window(sum, factor, shift, y, winners);
    }
}

inline void first_in_integers(const float* x, const float* weight, const float* bias, bf16* y,
                              uint8_t* winners, const Block& s, int threads) {
    const FirstFilters filters(weight, s.out);
    Pool::run(s.films * s.rows, threads, [&](Turn& turn) {
        FirstLines lines(s);
        do {
            const int film = turn.piece / s.rows, row = turn.piece % s.rows;
            const float back = lines.take(x + s.input(film, 2 * row, 0));
            for (int block = 0; block < s.out; block += GROUP) {
                const size_t at = s.pixel(film, row, 0) + block;
                first_row(lines, back, filters, block, bias, s.columns, y + at, winners + at);
            }
        } while (turn.next());
    });
}

}  // namespace hilum
#endif
