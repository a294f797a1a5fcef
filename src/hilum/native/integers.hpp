// Winograd's products of bfloat16 maps, in integers of 16 bits: the processor multiplies twice as
// many of them as floats. bfloat16's own eight bits would be too few, since the transforms magnify
// what is rounded. Numbers that are multiplied and added together share a scale, of 13 bits and a
// sign for 32 channels, and their sums are exact: less is lost than by rounding maps to bfloat16.
#pragma once

#include <cmath>
#include <cstring>

#include "winograd.hpp"

#ifdef __AVX512VNNI__
namespace hilum {

constexpr int PACK = 2 * LANES;  // channels in a vector of integers

// From two vectors, in an order of its own that is the same wherever channels are packed.
inline __m512i pack(vec low, vec high) {
    return _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)low), _mm512_cvtps_epi32((__m512)high));
}
inline int packed_channel(int place) { return place / 8 * 4 + place % 4 + place % 8 / 4 * LANES; }

// Of magnitudes: an infinity is larger than all numbers, a NaN larger still.
inline ivec larger_magnitude(ivec most, vec v) {
    return (ivec)_mm512_max_epi32((__m512i)most, (__m512i)((ivec)v & 0x7fffffff));
}

// Brings numbers of a magnitude up to `most` to integers of one up to `limit`, and back.
struct Scale {
    Scale(int most_bits, float limit) {
        float most;
        std::memcpy(&most, &most_bits, sizeof most);
        if (!(most < INFINITY))
            back = NAN;  // as is all that comes of it
        else if (most > 1e-30f)
            there = limit / most, back = most / limit;
    }
    float there = 0, back = 0;
};

class InIntegers {
public:
    static constexpr int MOST = 64;  // channels: more would leave them less than 12 bits

    InIntegers(const float* weight, const Shape& s)
        : in(s.in),
          out(s.out),
          limit(std::floor(std::sqrt(2147483647.0 / s.in))),  // so that no sum leaves 32 bits
          filters((size_t)POINTS * s.in * s.out),
          back((size_t)POINTS * s.out) {
        const Buffer<float> floats((size_t)POINTS * in * out);
        transform_filters(weight, floats, in, out);
        for (int strip = 0; strip < POINTS * out / OUT_BLOCK; strip++)
            for (int o = 0; o < OUT_BLOCK; o += LANES)
                pack_filters(floats + (size_t)strip * in * OUT_BLOCK + o,
                             filters + (size_t)strip * in * OUT_BLOCK + 2 * o,
                             back + strip * OUT_BLOCK + o);
    }

    // One row of the points of up to TILES tiles.
    class Row {
    public:
        Row(const InIntegers& of, float* tiles, float* products)
            : f(of), tiles(tiles), products(products), packed((size_t)TILE * TILES * of.in) {}

        void begin(int i) {
            row = i;
            for (ivec& m : most) m = ivec{};
        }
        void see(int j, vec v) { most[j] = larger_magnitude(most[j], v); }
        // All tiles have been seen and stored.
        void end(int count) {
            const int many = count * f.in;
            const float* from = tiles;
            int16_t* to = packed;
            for (int j = 0; j < TILE; j++) {
                const Scale scale(_mm512_reduce_max_epi32((__m512i)most[j]), f.limit);
                back[j] = scale.back;
                for (int k = 0; k < many; k += PACK, from += PACK, to += PACK)
                    _mm512_storeu_si512(
                        to, pack(load(from) * scale.there, load(from + LANES) * scale.there));
            }
        }
        void multiply(int j, int count) const {
            PRODUCT[count - 1](packed + (size_t)j * count * f.in,
                               f.filters + (size_t)(row * TILE + j) * f.in * f.out,
                               (int32_t*)products + (size_t)j * count * f.out, f.out, f.in);
        }
        // What brings the products of a point back.
        vec factor(int j, int channel) const {
            return back[j] * load(f.back + (row * TILE + j) * f.out + channel);
        }
        vec product(size_t at, vec factor) const {
            return factor * (vec)_mm512_cvtepi32_ps(_mm512_loadu_si512(products + at));
        }

    private:
        const InIntegers& f;
        const float* const tiles;
        float* const products;
        const Buffer<int16_t> packed;
        ivec most[TILE];
        float back[TILE];
        int row;
    };

private:
    // LANES columns of floats[in][OUT_BLOCK] to integers[in / 2][OUT_BLOCK][2], pairs of channels.
    void pack_filters(const float* from, int16_t* to, float* back) const {
        ivec most{};
        for (int i = 0; i < in; i++) most = larger_magnitude(most, load(from + i * OUT_BLOCK));
        vec there;
        for (int lane = 0; lane < LANES; lane++) {
            const Scale scale(most[lane], limit);
            there[lane] = scale.there;
            back[lane] = scale.back;
        }
        const auto whole = [&](int channel) {
            return (ivec)_mm512_cvtps_epi32((__m512)(load(from + channel * OUT_BLOCK) * there));
        };
        for (int i = 0; i < in; i += 2, to += 2 * OUT_BLOCK) {
            const int channel = i / PACK * PACK + packed_channel(i % PACK);  // the next is the next
            const ivec pair = (whole(channel) & 0xffff) | (whole(channel + 1) << 16);
            _mm512_storeu_si512(to, (__m512i)pair);
        }
    }

    // c[COUNT][columns] = a[COUNT][depth] . b, strips of filters.
    template <int COUNT>
    static void product(const int16_t* a, const int16_t* b, int32_t* c, int columns, int depth) {
        for (int column = 0; column < columns; column += OUT_BLOCK) {
            __m512i sum[COUNT][2];
            UNROLL for (int r = 0; r < COUNT; r++) sum[r][0] = sum[r][1] = _mm512_setzero_si512();
            for (int k = 0; k < depth; k += 2, b += 2 * OUT_BLOCK) {
                const __m512i left = _mm512_loadu_si512(b), right = _mm512_loadu_si512(b + PACK);
                UNROLL for (int r = 0; r < COUNT; r++) {
                    int pair;
                    std::memcpy(&pair, a + r * depth + k, sizeof pair);
                    const __m512i pairs = _mm512_set1_epi32(pair);
                    sum[r][0] = _mm512_dpwssd_epi32(sum[r][0], pairs, left);
                    sum[r][1] = _mm512_dpwssd_epi32(sum[r][1], pairs, right);
                }
            }
            UNROLL for (int r = 0; r < COUNT; r++)
                UNROLL for (int v = 0; v < 2; v++)
                    _mm512_storeu_si512(c + (size_t)r * columns + column + v * LANES, sum[r][v]);
        }
    }
    using Product = void (*)(const int16_t*, const int16_t*, int32_t*, int, int);
    template <int... I>
    static constexpr std::array<Product, sizeof...(I)> products(std::integer_sequence<int, I...>) {
        return {product<I + 1>...};
    }
    static inline const auto PRODUCT = products(std::make_integer_sequence<int, TILES>());

    const int in, out;
    const float limit;
    const Buffer<int16_t> filters;  // [POINTS][out / OUT_BLOCK][in / 2][OUT_BLOCK][2]
    const Buffer<float> back;       // [POINTS][out]
};

}  // namespace hilum
#endif
