// Vectors of 16 floats with AVX-512, of 8 with AVX2. Nearly all that names instructions is here.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#define UNROLL _Pragma("GCC unroll 64")

namespace hilum {

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define AVX512 1
constexpr int LANES = 16;
#else
#define AVX512 0
constexpr int LANES = 8;
#endif
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define MATRIX_TILES 1
#else
#define MATRIX_TILES 0
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t bf16;

inline vec load(const float* p) { return *(const loose_vec*)p; }
inline void store(float* p, vec v) { *(loose_vec*)p = v; }
// Kept in a register, where the compiler would read it from memory at each use.
template <class V>
inline V held(V v) {
#if AVX512
    asm("" : "+v"(v));
#endif
    return v;
}
inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline vec broadcast(float value) { return value - vec{}; }

#if AVX512
inline __mmask16 first_lanes(int count) {
    return _cvtu32_mask16(count < LANES ? (1u << count) - 1 : 0xffff);
}
inline vec load_some(const float* p, int count) {  // behind them noughts
    return (vec)_mm512_maskz_loadu_ps(first_lanes(count), p);
}
inline vec load(const bf16* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    return (vec)_mm512_slli_epi32(wide, 16);
}
inline ivec load_places(const uint8_t* p) {
    return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
}
inline ivec gather_words(const uint8_t* p, ivec at) {  // four bytes from each place on
    return (ivec)_mm512_i32gather_epi32((__m512i)at, p, 1);
}
inline void store_low(bf16* p, ivec v) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)v));
}
inline void store_low(uint8_t* p, ivec v) {
    _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)v));
}
inline vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
inline bool any_nan(vec a, vec b, vec c, vec d) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q) |
           _mm512_cmp_ps_mask((__m512)c, (__m512)d, _CMP_UNORD_Q);
}
#else
inline vec load(const bf16* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
    return (vec)_mm256_slli_epi32(wide, 16);
}
inline ivec load_places(const uint8_t* p) {
    return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
}
inline ivec gather_words(const uint8_t* p, ivec at) {
    return (ivec)_mm256_i32gather_epi32((const int*)p, (__m256i)at, 1);
}
inline __m128i low_halves(ivec v) {
    const __m256i packed = _mm256_packus_epi32((__m256i)v, (__m256i)v);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
inline void store_low(bf16* p, ivec v) { _mm_storeu_si128((__m128i*)p, low_halves(v)); }
inline void store_low(uint8_t* p, ivec v) {
    const __m128i halves = low_halves(v);
    _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(halves, halves));
}
inline vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
inline bool any_nan(vec a, vec b, vec c, vec d) {
    const __m256 first = _mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q);
    return _mm256_movemask_ps(
        _mm256_or_ps(first, _mm256_cmp_ps((__m256)c, (__m256)d, _CMP_UNORD_Q)));
}
#endif

#ifdef __AVX512BF16__
inline void store(bf16* p, vec v) {
    _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
#else
inline void store(bf16* p, vec v) {  // to nearest even; a NaN stays one
    const ivec bits = (ivec)v;
    const ivec rounded = bits + 0x7fff + ((bits >> 16) & 1);
    store_low(p, ((v == v ? rounded : (bits | 0x400000)) >> 16) & 0xffff);
}
#endif

// Bit c: has channel c of 32 this winner?
inline uint32_t channels_with(const uint8_t* winners, int place) {
    const __m256i bytes = _mm256_loadu_si256((const __m256i*)winners);
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8((char)place)));
}

// Asks for memory ahead of its use: one of `shares` shares of it, so that requests are spread.
inline void prefetch(const void* begin, size_t bytes, int share, int shares) {
    const char* p = (const char*)begin;
    for (size_t at = bytes * share / shares / 64 * 64; at < bytes * (share + 1) / shares; at += 64)
        __builtin_prefetch(p + at, 0, 3);
}

}  // namespace hilum
