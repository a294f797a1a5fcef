// Matrix tiles (AMX): convolutions 3x3 of bfloat16 maps as plain sums, of which a tile multiplies
// and adds 16 x 16 x 32 at a time, in float. Products of maps and filters are exact; filters are
// rounded.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "layers.hpp"

#if MATRIX_TILES
namespace hilum::tiles {

constexpr int SIDE = 16;       // rows of a tile, and numbers of a line of sums
constexpr int DEPTH = 32;      // bfloat16 in a line: they are multiplied in pairs and added up
constexpr int PART = 16 * 32;  // bfloat16 in a tile
constexpr int SUMS = 16 * 16;  // floats in a tile

// Linux lets a process use tiles when it asks for them (arch_prctl, ARCH_REQ_XCOMP_PERM).
inline bool allowed() {
    static const bool granted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return granted;
}

// Tiles of `rows` lines for sums and left factors while it lives; right ones have always 16.
class Configured {
public:
    explicit Configured(int rows) {
        struct {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t lines[16] = {};
        } all;
        for (int i = 0; i < 8; i++) all.bytes[i] = 64, all.lines[i] = i < 6 ? rows : SIDE;
        asm volatile("ldtilecfg %0" ::"m"(all));
    }
    ~Configured() { asm volatile("tilerelease"); }
    Configured(const Configured&) = delete;
};

// Tiles 0 to 3 hold sums, 4 and 5 left factors, 6 and 7 right ones.
template <int TILE>
inline void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(TILE));
}
template <int TILE>
inline void load(const void* from, size_t bytes_apart) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(bytes_apart), "i"(TILE)
                 : "memory");
}
template <int TILE>
inline void store(float* to) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"((size_t)64), "i"(TILE) : "memory");
}
template <int SUM, int LEFT, int RIGHT>
inline void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(LEFT), "i"(RIGHT));
}

// Sums[L][R] of L left and R right factors, one or two each.
template <int L, int R>
struct Sums {
    static void zero() {
        tiles::zero<0>();
        if (R > 1) tiles::zero<1>();
        if (L > 1) tiles::zero<2>();
        if (L > 1 && R > 1) tiles::zero<3>();
    }
    static void load(const float* sums) {
        tiles::load<0>(sums, 64);
        if (R > 1) tiles::load<1>(sums + SUMS, 64);
        if (L > 1) tiles::load<2>(sums + R * SUMS, 64);
        if (L > 1 && R > 1) tiles::load<3>(sums + 3 * SUMS, 64);
    }
    static void store(float* sums) {
        tiles::store<0>(sums);
        if (R > 1) tiles::store<1>(sums + SUMS);
        if (L > 1) tiles::store<2>(sums + R * SUMS);
        if (L > 1 && R > 1) tiles::store<3>(sums + 3 * SUMS);
    }
    static void load_left(const bf16* left, size_t next, size_t bytes_apart) {
        tiles::load<4>(left, bytes_apart);
        if (L > 1) tiles::load<5>(left + next, bytes_apart);
    }
    static void load_right(const bf16* right, size_t next, size_t bytes_apart) {
        tiles::load<6>(right, bytes_apart);
        if (R > 1) tiles::load<7>(right + next, bytes_apart);
    }
    template <int FIRST = 4, int SECOND = 5>  // the left factors
    static void multiply() {
        tiles::multiply<0, FIRST, 6>();
        if (R > 1) tiles::multiply<1, FIRST, 7>();
        if (L > 1) tiles::multiply<2, SECOND, 6>();
        if (L > 1 && R > 1) tiles::multiply<3, SECOND, 7>();
    }
};

// Of two rows of 16 numbers, what lies in one column side by side.
inline __m512i paired(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

// Right factors of a convolution from `in` to `out` channels. What a line of a filter sees of a map
// are 3 `in` numbers side by side, which are multiplied in steps of 32; noughts fill the last.
class Filters {
public:
    // From weight[out][in][TAPS]; `back`: for the way back, which convolves gradients of outputs
    // by filters turned around.
    Filters(const float* weight, int weight_in, int weight_out, bool back)
        : in(back ? weight_out : weight_in),
          out(back ? weight_in : weight_out),
          steps((3 * in + DEPTH - 1) / DEPTH),
          tiles((size_t)out / SIDE * 3 * steps * PART) {
        std::fill_n((bf16*)tiles, (size_t)out / SIDE * 3 * steps * PART, 0);
        const int each_in = back ? weight_in * TAPS : TAPS, each_out = back ? TAPS : in * TAPS;
        ivec apart;
        for (int lane = 0; lane < LANES; lane++) apart[lane] = lane * each_out;
        const auto rounded = [&](int o, int i, int tap) {  // of 16 outputs
            const float* from = weight + (size_t)o * each_out + (size_t)i * each_in;
            return (__m256i)_mm512_cvtneps_pbh(
                _mm512_i32gather_ps((__m512i)apart, from + (back ? TAPS - 1 - tap : tap), 4));
        };
        for (int o = 0; o < out; o += SIDE)
            for (int i = 0; i < in; i += 2)
                for (int tap = 0; tap < TAPS; tap++) {
                    const int at = tap % 3 * in + i;
                    bf16* to = (bf16*)right(o, tap / 3, at / DEPTH) + at % DEPTH / 2 * DEPTH;
                    _mm512_storeu_si512(to, paired(rounded(o, i, tap), rounded(o, i + 1, tap)));
                }
    }
    // The tile of a line of filters `o` to `o` + 15; that of the next 16 lies `next` behind.
    const bf16* right(int o, int down, int step) const {
        return tiles + (((size_t)o / SIDE * 3 + down) * steps + step) * PART;
    }
    size_t next() const { return (size_t)3 * steps * PART; }

    const int in, out, steps;

private:
    const Buffer<bf16> tiles;
};

}  // namespace hilum::tiles
#endif
