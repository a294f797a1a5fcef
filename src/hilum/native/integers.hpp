// Winograd's products of bfloat16 maps, in integers of 16 bits: the processor multiplies twice as
// many of them as floats. bfloat16's own eight bits would be too few, since the transforms magnify
// what is rounded. Numbers that are multiplied and added together share a scale, and their sums are
// exact: less is lost than by rounding maps to bfloat16.
#pragma once

#include <cmath>
#include <cstring>

#include "winograd.hpp"

#ifdef __AVX512VNNI__
namespace hilum {

constexpr int PACK = 2 * LANES;  // channels in a vector of integers
// The largest number that is packed, where up to so many are multiplied and added.
constexpr float largest_of(int numbers) { return numbers > 32 ? 16383 : 32767; }

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
    Scale(float most, float limit) {
        if (!(most < INFINITY))
            back = NAN;  // as is all that comes of it
        else if (most > 1e-33f)
            there = limit / most, back = most / limit;
    }
    // Of `numbers` whose magnitudes are `ratio` times the largest in sum, so that 32 bits hold what
    // comes of those by which they are multiplied. Rounding may add half to each.
    Scale(float most, float ratio, int numbers)
        : Scale(most, std::min(largest_of(numbers),
                               (std::floor(2147483647 / largest_of(numbers)) - numbers) / ratio)) {}
    int whole(float value) const { return there > 0 ? (int)std::nearbyint(value * there) : 0; }
    float there = 0, back = 0;
};

class InIntegers {
public:
    static constexpr int MOST = 64;  // channels: more would leave filters less than 11 bits

    InIntegers(const float* weight, const Shape& s)
        : in(s.in),
          out(s.out),
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
        Row(const InIntegers& of, float* products)
            : f(of), products(products), packed((size_t)TILE * TILES * of.in) {}

        static constexpr int WIDTH = 2;  // vectors of channels that are put at a time

        // Magnitudes of what the columns' transform has made: they bound what the rows' will.
        struct Seen {
            void operator()(int i, vec v) { most[i] = larger_magnitude(most[i], v); }
            ivec most[TILE] = {};
        };
        struct Put {
            void operator()(int j, size_t at, const vec* v) const {
                _mm512_storeu_si512(to + at, pack(v[0] * there[j], v[1] * there[j]));
            }
            int16_t* to;
            float there[TILE];
        };
        Put begin(int i, const Seen& seen) {
            constexpr float GAIN[TILE] = {10, 10, 10, 6, 6, 10};  // most that it makes of 1
            row = i;
            Put put{packed, {}};
            for (int j = 0; j < TILE; j++) {
                const float most = from_bits(_mm512_reduce_max_epi32((__m512i)seen.most[i]));
                const Scale scale(GAIN[j] * most, largest_of(f.in));
                put.there[j] = scale.there, back[j] = scale.back;
            }
            return put;
        }
        void multiply(int count, const Ahead& ahead) const {
            const auto& by_count = f.in == GROUP ? PRODUCTS<GROUP> : PRODUCTS<2 * GROUP>;
            by_count[count - 1](packed, f.filters + (size_t)row * TILE * f.in * f.out,
                                (int32_t*)products, f.out / OUT_BLOCK, ahead);
        }
        // What brings the products of a point back.
        vec factor(int j, int channel) const {
            return back[j] * load(f.back + (row * TILE + j) * f.out + channel);
        }
        vec product(int j, int tile, int channel, int count, vec factor) const {
            const size_t strip = (size_t)j * (f.out / OUT_BLOCK) + channel / OUT_BLOCK;
            const float* at = products + (strip * count + tile) * OUT_BLOCK + channel % OUT_BLOCK;
            return factor * (vec)_mm512_cvtepi32_ps(_mm512_loadu_si512(at));
        }

    private:
        const InIntegers& f;
        float* const products;         // of integers: [TILE][strips][count][OUT_BLOCK]
        const Buffer<int16_t> packed;  // [TILE][count][in]
        float back[TILE];
        int row;
    };

private:
    // LANES columns of floats[in][OUT_BLOCK] to integers[in / 2][OUT_BLOCK][2], pairs of channels.
    void pack_filters(const float* from, int16_t* to, float* back) const {
        ivec most{};
        for (int i = 0; i < in; i++) most = larger_magnitude(most, load(from + i * OUT_BLOCK));
        vec ratio{}, there;
        for (int i = 0; i < in; i++)
            ratio += (vec)((ivec)load(from + i * OUT_BLOCK) & 0x7fffffff) / (vec)most;
        for (int lane = 0; lane < LANES; lane++) {
            const Scale scale(from_bits(most[lane]), ratio[lane], in);
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

    // c[TILE][strips][COUNT][OUT_BLOCK] = a[TILE][COUNT][DEPTH] . b, strips of filters.
    template <int DEPTH, int COUNT>
    static void product(const int16_t* a, const int16_t* b, int32_t* c, int strips, const Ahead& ahead) {
        for (int point = 0; point < TILE; point++, a += COUNT * DEPTH) {
            ahead.prefetch(point);
            for (int strip = 0; strip < strips; strip++, c += COUNT * OUT_BLOCK) {
                __m512i sum[COUNT][2];
                UNROLL for (int r = 0; r < COUNT; r++)
                    sum[r][0] = sum[r][1] = _mm512_setzero_si512();
                for (int k = 0; k < DEPTH; k += 2, b += 2 * OUT_BLOCK) {
                    const __m512i left = _mm512_loadu_si512(b);
                    const __m512i right = _mm512_loadu_si512(b + PACK);
                    UNROLL for (int r = 0; r < COUNT; r++) {
                        int pair;
                        std::memcpy(&pair, a + r * DEPTH + k, sizeof pair);
                        const __m512i pairs = _mm512_set1_epi32(pair);
                        sum[r][0] = held(_mm512_dpwssd_epi32(sum[r][0], pairs, left));
                        sum[r][1] = held(_mm512_dpwssd_epi32(sum[r][1], pairs, right));
                    }
                }
                UNROLL for (int r = 0; r < COUNT; r++)
                    UNROLL for (int v = 0; v < 2; v++)
                        _mm512_storeu_si512(c + r * OUT_BLOCK + v * LANES, sum[r][v]);
            }
        }
    }
    using Product = void (*)(const int16_t*, const int16_t*, int32_t*, int, const Ahead&);
    template <int DEPTH, int... I>
    static constexpr std::array<Product, sizeof...(I)> products(std::integer_sequence<int, I...>) {
        return {product<DEPTH, I + 1>...};
    }
    template <int DEPTH>  // by COUNT, less one
    static inline const auto PRODUCTS = products<DEPTH>(std::make_integer_sequence<int, TILES>());

    const int in, out;
    const Buffer<int16_t> filters;  // [POINTS][out / OUT_BLOCK][in / 2][OUT_BLOCK][2]
    const Buffer<float> back;       // [POINTS][out]
};

}  // namespace hilum
#endif
