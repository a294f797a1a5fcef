// Matrix tiles (AMX): convolutions 3x3 of bfloat16 maps as plain sums, of which a tile multiplies and
// adds 16 x 16 x 32 at a time, in float. Products of maps and filters are exact; filters are rounded.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "layers.hpp"

#ifdef __AMX_BF16__
namespace hilum::tiles {

constexpr int SIDE = 16;         // rows of a tile, and numbers of a line of sums
constexpr int DEPTH = 32;        // bfloat16 in a line: they are multiplied in pairs and added up
constexpr int PART = 16 * 32;    // bfloat16 in a tile
constexpr int SUMS = 16 * 16;    // floats in a tile

// Linux lets a process use tiles when it asks for them (arch_prctl, ARCH_REQ_XCOMP_PERM).
inline bool allowed() {
    static const bool granted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return granted;
}

// Tiles of `rows` lines for A and C while it lives; B has always 16.
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
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(bytes_apart), "i"(TILE) : "memory");
}
template <int TILE>
inline void store(float* to) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"((size_t)64), "i"(TILE) : "memory");
}
template <int SUM, int LEFT, int RIGHT>
inline void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(LEFT), "i"(RIGHT));
}
inline void multiply_all() {
    multiply<0, 4, 6>(), multiply<1, 4, 7>(), multiply<2, 5, 6>(), multiply<3, 5, 7>();
}

// Right factors of a convolution from `in` to `out` channels: [out / 32][in / 32][TAPS][2] tiles.
class Filters {
public:
    // From weight[out][in][TAPS]; `back`: for the way back, which convolves gradients of outputs
    // by filters turned around.
    Filters(const float* weight, int weight_in, int weight_out, bool back)
        : in(back ? weight_out : weight_in),
          out(back ? weight_in : weight_out),
          tiles((size_t)in * out * TAPS) {
        for (int o = 0; o < out; o++)
            for (int i = 0; i < in; i++)
                for (int tap = 0; tap < TAPS; tap++) {
                    const size_t from = back ? ((size_t)i * weight_in + o) * TAPS + TAPS - 1 - tap
                                             : ((size_t)o * weight_in + i) * TAPS + tap;
                    const size_t tile = part(o / DEPTH, i / DEPTH, tap) + o % DEPTH / SIDE;
                    bf16 rounded[LANES];
                    hilum::store(rounded, broadcast(weight[from]));
                    tiles[tile * PART + i % DEPTH / 2 * DEPTH + o % SIDE * 2 + i % 2] = rounded[0];
                }
    }
    // Two rows of up to 16 outputs of 32 channels from `block` on: sums[row][2][16][16]. `line`: four
    // lines of inputs, each from the first output's first tap on. Vectors have time while tiles
    // multiply: meanwhile(share, shares) does a share of something else.
    template <class Meanwhile>
    void convolve(const bf16* const (&line)[4], int block, float* sums, Meanwhile meanwhile) const {
        zero<0>(), zero<1>(), zero<2>(), zero<3>();
        const size_t apart = (size_t)in * sizeof(bf16);
        for (int k = 0; k < in; k += DEPTH) {
            const bf16* filter = tiles + part(block / DEPTH, k / DEPTH, 0) * PART;
            for (int across = 0; across < 3; across++, filter += 2 * PART) {
                const size_t at = (size_t)across * in + k;
                load<4>(line[0] + at, apart), load<5>(line[1] + at, apart);
                load<6>(filter, 64), load<7>(filter + PART, 64);
                multiply_all();
                load<4>(line[2] + at, apart);  // the second row's; the first row's is in 5
                load<6>(filter + 6 * PART, 64), load<7>(filter + 7 * PART, 64);
                multiply<0, 5, 6>(), multiply<1, 5, 7>(), multiply<2, 4, 6>(), multiply<3, 4, 7>();
                load<5>(line[3] + at, apart);
                load<6>(filter + 12 * PART, 64), load<7>(filter + 13 * PART, 64);
                multiply_all();
                meanwhile(k / DEPTH * 3 + across, in / DEPTH * 3);
            }
        }
        store<0>(sums), store<1>(sums + SUMS), store<2>(sums + 2 * SUMS), store<3>(sums + 3 * SUMS);
    }

private:
    size_t part(int to, int from, int tap) const {
        return 2 * (((size_t)to * (in / DEPTH) + from) * TAPS + tap);
    }
    const int in, out;
    const Buffer<bf16> tiles;
};

}  // namespace hilum::tiles
#endif
