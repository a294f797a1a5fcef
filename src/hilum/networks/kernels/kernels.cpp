// Blocks of "3x3 convolution without a frame, bias, ReLU, 2x2 max-pooling" for the CPU.
//
// Maps are NHWC (torch's channels_last), float or bfloat16 in memory, float in arithmetic. A pooled
// pixel keeps its winner as one byte: the place 0..3 in its 2x2 window, row by row, or DEAD where
// ReLU cut it off. Neither the map before the pool nor its gradient is ever written: only winners
// carry a gradient, so the backward sums visit a quarter of the products, and fewer where units
// are dead.
//
// Work is cut into pieces by the shape alone, and the sums of the pieces are added in their order,
// so a result does not depend on the number of threads.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#include "pool.hpp"

#define UNROLL _Pragma("GCC unroll 64")

namespace {

// -------------------------------------------------------------------------------------------------
// Vectors: 16 floats with AVX-512, 8 with AVX2. Only this section names instructions, but for one
// permutation in `first_gradient`.

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define AVX512 1
constexpr int LANES = 16;
#else
#define AVX512 0
constexpr int LANES = 8;
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t bf16;

inline vec load(const float* p) { return *(const loose_vec*)p; }
inline void store(float* p, vec v) { *(loose_vec*)p = v; }
inline vec broadcast(float value) { return value - vec{}; }

#if AVX512
inline vec load(const bf16* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    return (vec)_mm512_slli_epi32(wide, 16);
}
inline ivec load_places(const uint8_t* p) {
    return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
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
    return _mm256_movemask_ps(_mm256_or_ps(first, _mm256_cmp_ps((__m256)c, (__m256)d, _CMP_UNORD_Q)));
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

// -------------------------------------------------------------------------------------------------
// What all layers share.

constexpr int DEAD = 4;
constexpr int TAPS = 9;    // of a 3x3 filter
constexpr int GROUP = 32;  // channels come in multiples of this (pooling alone: of 16)

struct Buffer {  // floats, aligned to a cache line
    explicit Buffer(size_t count)
        : memory((float*)std::aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64), std::free) {
        if (!memory) throw std::bad_alloc();
    }
    operator float*() const { return memory.get(); }
    std::unique_ptr<float, void (*)(void*)> memory;
};

struct Shape {  // the input of a layer, and its output's channels
    int films, height, width, in, out;
};

struct Block : Shape {  // of a block: convolution takes two pixels, pooling halves
    explicit Block(const Shape& shape) : Shape(shape) {}
    const int rows = (height - 2) / 2, columns = (width - 2) / 2;
    const int strips = std::max(1, rows / 16);  // pieces of a film
    int first_row(int strip) const { return (int)((long)rows * strip / strips); }
    size_t pixel(int film, int row, int column) const {  // pooled
        return (((size_t)film * rows + row) * columns + column) * out;
    }
    size_t input(int film, int row, int column) const {
        return (((size_t)film * height + row) * width + column) * in;
    }
};

struct Pooled {
    vec value;
    ivec winner;
};

// torch's rule: row by row, a later value wins if it is larger or NaN.
inline Pooled pool_with_nan(vec a, vec b, vec c, vec d) {
    Pooled best{a, ivec{}};
    const vec later[] = {b, c, d};
    for (int place = 1; place < 4; place++) {
        const vec next = later[place - 1];
        const ivec wins = (next > best.value) | (next != next);
        best = {wins ? next : best.value, wins ? ivec{} + place : best.winner};
    }
    return best;
}

inline Pooled relu_pool(vec a, vec b, vec c, vec d) {
    Pooled best;
    if (__builtin_expect(any_nan(a, b, c, d), false)) {
        best = pool_with_nan(a, b, c, d);
    } else {
        const vec top = larger(a, b), bottom = larger(c, d);
        const ivec above = b > a ? ivec{} + 1 : ivec{}, below = d > c ? ivec{} + 3 : ivec{} + 2;
        best = {larger(top, bottom), bottom > top ? below : above};
    }
    const ivec dead = best.value <= vec{};
    return {dead ? vec{} : best.value, dead ? ivec{} + DEAD : best.winner};
}

template <class T>
inline void keep(Pooled pooled, T* y, uint8_t* winners) {
    store(y, pooled.value);
    store_low(winners, pooled.winner);
}

// -------------------------------------------------------------------------------------------------
// ReLU and 2x2 max-pooling alone.

template <class T>
void pool_forward(const T* x, T* y, uint8_t* winners, const Shape& s, int threads) {
    const int rows = s.height / 2, columns = s.width / 2;
    const size_t line = (size_t)s.width * s.in;
    Pool::run(s.films * rows, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / rows, row = turn.piece % rows;
            const T* top = x + ((size_t)film * s.height + 2 * row) * line;
            size_t out = (size_t)turn.piece * columns * s.in;
            for (int column = 0; column < columns; column++, top += 2 * s.in)
                for (int c = 0; c < s.in; c += LANES, out += LANES) {
                    const T *left = top + c, *right = left + s.in;
                    const Pooled best = relu_pool(load(left), load(right), load(left + line),
                                                  load(right + line));
                    keep(best, y + out, winners + out);
                }
        } while (turn.next());
    });
}

template <class T>
void pool_backward(const T* dy, const uint8_t* winners, T* dx, const Shape& s, int threads) {
    const int rows = s.height / 2, columns = s.width / 2;
    const size_t line = (size_t)s.width * s.in, windows = (size_t)2 * columns * s.in;
    const int lines = (s.height + 1) / 2;
    Pool::run(s.films * lines, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / lines, row = turn.piece % lines;
            T* top = dx + ((size_t)film * s.height + 2 * row) * line;
            if (row == rows) {  // an odd last row has no window
                std::fill_n(top, line, T{});
                continue;
            }
            size_t in = ((size_t)film * rows + row) * columns * s.in;
            for (T* corner = top; corner < top + windows; corner += 2 * s.in)
                for (int c = 0; c < s.in; c += LANES, in += LANES) {
                    const vec gradient = load(dy + in);
                    const ivec winner = load_places(winners + in);
                    UNROLL for (int place = 0; place < 4; place++)
                        store(corner + place / 2 * line + place % 2 * s.in + c,
                              winner == place ? gradient : vec{});
                }
            for (T* end : {top + windows, top + line + windows}) std::fill_n(end, line - windows, T{});
        } while (turn.next());
    });
}

// -------------------------------------------------------------------------------------------------
// The first block: with one input channel nothing but the pooled map is worth writing.

constexpr int WIDE = AVX512 ? 2 : 1;  // vectors of channels whose nine taps fit the registers

template <class T>
void first_forward(const float* x, const float* weight, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int threads) {
    Buffer taps((size_t)TAPS * s.out);
    for (int tap = 0; tap < TAPS; tap++)
        for (int c = 0; c < s.out; c++) taps[tap * s.out + c] = weight[c * TAPS + tap];
    Pool::run(s.films * s.rows, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / s.rows, row = turn.piece % s.rows;
            for (int block = 0; block < s.out; block += WIDE * LANES) {
                vec filter[TAPS][WIDE], shift[WIDE];
                UNROLL for (int v = 0; v < WIDE; v++) {
                    shift[v] = load(bias + block + v * LANES);
                    UNROLL for (int tap = 0; tap < TAPS; tap++)
                        filter[tap][v] = load(taps + tap * s.out + block + v * LANES);
                }
                const float* seen = x + s.input(film, 2 * row, 0);
                size_t out = s.pixel(film, row, 0) + block;
                for (int column = 0; column < s.columns; column++, seen += 2, out += s.out) {
                    vec sum[4][WIDE];
                    UNROLL for (int place = 0; place < 4; place++)
                        UNROLL for (int v = 0; v < WIDE; v++) sum[place][v] = shift[v];
                    UNROLL for (int i = 0; i < 4; i++)
                        UNROLL for (int j = 0; j < 4; j++) {
                            const vec pixel = broadcast(seen[i * s.width + j]);
                            UNROLL for (int place = 0; place < 4; place++) {
                                const int dy = i - place / 2, dx = j - place % 2;
                                if (dy < 0 || dy > 2 || dx < 0 || dx > 2) continue;
                                UNROLL for (int v = 0; v < WIDE; v++)
                                    sum[place][v] += pixel * filter[dy * 3 + dx][v];
                            }
                        }
                    UNROLL for (int v = 0; v < WIDE; v++)
                        keep(relu_pool(sum[0][v], sum[1][v], sum[2][v], sum[3][v]),
                             y + out + v * LANES, winners + out + v * LANES);
                }
            }
        } while (turn.next());
    });
}

// Adds gradient times the 3x3 pixels that each channel's winner has seen.
inline void first_gradient(const float* corner, int width, vec gradient, ivec winner,
                           vec (&sum)[TAPS]) {
#if AVX512
    __m512 pixels = _mm512_castps128_ps512(_mm_loadu_ps(corner));  // all 4x4 in one register
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + width), 1);
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + 2 * width), 2);
    pixels = _mm512_insertf32x4(pixels, _mm_loadu_ps(corner + 3 * width), 3);
    const ivec first = (winner >> 1) * 4 + (winner & 1);
    UNROLL for (int tap = 0; tap < TAPS; tap++) {
        const ivec which = first + (tap / 3 * 4 + tap % 3);
        sum[tap] += gradient * (vec)_mm512_permutexvar_ps((__m512i)which, pixels);
    }
#else
    UNROLL for (int place = 0; place < 4; place++) {
        const vec part = winner == place ? gradient : vec{};
        UNROLL for (int tap = 0; tap < TAPS; tap++) {
            const int row = tap / 3 + place / 2, column = tap % 3 + place % 2;
            sum[tap] += part * broadcast(corner[row * width + column]);
        }
    }
#endif
}

template <class T>
void first_backward(const float* x, const T* dy, const uint8_t* winners, float* dweight,
                    float* dbias, const Block& s, int threads) {
    const size_t part = (size_t)(TAPS + 1) * s.out;
    const int pieces = s.films * s.strips;
    Buffer partial(part * pieces);
    Pool::run(pieces, threads, [&](Turn& turn) {
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            for (int block = 0; block < s.out; block += WIDE * LANES) {
                vec sum[WIDE][TAPS] = {}, bias[WIDE] = {};
                for (int row = s.first_row(strip); row < s.first_row(strip + 1); row++) {
                    const float* seen = x + s.input(film, 2 * row, 0);
                    size_t at = s.pixel(film, row, 0) + block;
                    for (int column = 0; column < s.columns; column++, seen += 2, at += s.out)
                        UNROLL for (int v = 0; v < WIDE; v++) {
                            const ivec winner = load_places(winners + at + v * LANES);
                            const vec all = load(dy + at + v * LANES);
                            const vec gradient = winner == DEAD ? vec{} : all;
                            bias[v] += gradient;
                            first_gradient(seen, s.width, gradient, winner, sum[v]);
                        }
                }
                float* mine = partial + part * turn.piece + block;
                UNROLL for (int v = 0; v < WIDE; v++, mine += LANES) {
                    UNROLL for (int tap = 0; tap < TAPS; tap++) store(mine + tap * s.out, sum[v][tap]);
                    store(mine + TAPS * s.out, bias[v]);
                }
            }
        } while (turn.next());
    });
    for (int c = 0; c < s.out; c++)
        for (int tap = 0; tap <= TAPS; tap++) {
            float sum = 0;
            for (int i = 0; i < pieces; i++) sum += partial[part * i + tap * s.out + c];
            (tap < TAPS ? dweight[c * TAPS + tap] : dbias[c]) = sum;
        }
}

// -------------------------------------------------------------------------------------------------
// Forward convolution by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016):
// 36 products where the plain sum has 144. A tile of 4x4 outputs is four pooling windows, so bias,
// ReLU and pooling happen in registers on the way out.

constexpr int TILE = 6;                       // input pixels a side of a tile
constexpr int TILES = AVX512 ? 12 : 6;        // tiles multiplied at a time: they fill the registers
constexpr int STRETCH = 4 * TILES + 2;        // input columns under them
constexpr int BLOCK = 2 * LANES;              // output channels multiplied at a time

inline void transform_input(const vec (&d)[TILE], vec (&t)[TILE]) {
    const vec even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
    const vec even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = even2 + odd2;
    t[4] = even2 - odd2;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

inline void transform_output(const vec (&m)[TILE], vec (&y)[4]) {
    const vec even = m[1] + m[2], odd = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
    y[0] = m[0] + even + even2;
    y[1] = odd + 2 * odd2;
    y[2] = even + 4 * even2;
    y[3] = odd + 8 * odd2 + m[5];
}

// One dimension of a filter's transform.
inline void transform_filter(const vec (&g)[3], vec (&t)[TILE]) {
    const vec ends = (g[0] + g[2]) * (1.f / 6), middle = g[1] * (1.f / 6);
    const vec ends2 = g[0] * (1.f / 24) + g[2] * (1.f / 6), middle2 = g[1] * (1.f / 12);
    t[0] = g[0] * (1.f / 4);
    t[1] = -ends - middle;
    t[2] = middle - ends;
    t[3] = ends2 + middle2;
    t[4] = ends2 - middle2;
    t[5] = g[2];
}

// weight[out][in][TAPS] to filters[points][out / BLOCK][in][BLOCK].
void transform_filters(const float* weight, float* filters, int in, int out) {
    for (int o = 0; o < out; o += LANES)
        for (int i = 0; i < in; i++) {
            vec g[3][3], columns[3][TILE];
            for (int lane = 0; lane < LANES; lane++)
                for (int tap = 0; tap < TAPS; tap++)
                    g[tap % 3][tap / 3][lane] = weight[((size_t)(o + lane) * in + i) * TAPS + tap];
            for (int b = 0; b < 3; b++) transform_filter(g[b], columns[b]);
            float* point = filters + ((size_t)o / BLOCK * in + i) * BLOCK + o % BLOCK;
            for (int a = 0; a < TILE; a++) {
                const vec row[3] = {columns[0][a], columns[1][a], columns[2][a]};
                vec t[TILE];
                transform_filter(row, t);
                for (int b = 0; b < TILE; b++, point += (size_t)in * out) store(point, t[b]);
            }
        }
}

// products[COUNT][out] = tiles[COUNT][in] . filters[in][out], out in blocks, for one of the points.
template <int COUNT>
void multiply(const float* tiles, const float* filters, float* products, int in, int out) {
    for (int block = 0; block < out; block += BLOCK, filters += (size_t)in * BLOCK) {
        vec sum[COUNT][2] = {};
        for (int k = 0; k < in; k++) {
            const vec first = load(filters + k * BLOCK), second = load(filters + k * BLOCK + LANES);
            UNROLL for (int t = 0; t < COUNT; t++) {
                const vec value = broadcast(tiles[t * in + k]);
                sum[t][0] += value * first;
                sum[t][1] += value * second;
            }
        }
        UNROLL for (int t = 0; t < COUNT; t++) {
            store(products + t * out + block, sum[t][0]);
            store(products + t * out + block + LANES, sum[t][1]);
        }
    }
}
using Multiply = void (*)(const float*, const float*, float*, int, int);
template <int... I>
constexpr std::array<Multiply, sizeof...(I)> multiplies(std::integer_sequence<int, I...>) {
    return {multiply<I + 1>...};
}
constexpr auto MULTIPLY = multiplies(std::make_integer_sequence<int, TILES>());

struct Workspace {  // of one thread
    explicit Workspace(const Shape& s)
        : half((size_t)TILE * STRETCH * s.in),
          tiles((size_t)TILE * TILES * s.in),
          products((size_t)TILE * TILES * s.out),
          sums((size_t)TILE * 4 * TILES * s.out) {}
    const Buffer half;      // [TILE][STRETCH][in]: the columns transformed
    const Buffer tiles;     // [TILE][count][in]: one row of points
    const Buffer products;  // [TILE][count][out]
    const Buffer sums;      // [TILE][4 TILES][out]: the rows transformed back
};

// `count` tiles of one row of tiles, from the tile `first` on.
template <class T>
void forward_tiles(const T* x, const float* filters, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int film, int down, int first, int count, const Workspace& work) {
    // Beyond the edge the last pixel is read again; only outputs that nobody keeps see it.
    const T* line[TILE];
    for (int i = 0; i < TILE; i++) line[i] = x + s.input(film, std::min(4 * down + i, s.height - 1), 0);
    for (int column = 0; column < 4 * count + 2; column++) {
        const size_t from = (size_t)std::min(4 * first + column, s.width - 1) * s.in;
        for (int k = 0; k < s.in; k += LANES) {
            vec d[TILE], t[TILE];
            UNROLL for (int i = 0; i < TILE; i++) d[i] = load(line[i] + from + k);
            transform_input(d, t);
            UNROLL for (int i = 0; i < TILE; i++)
                store(work.half + ((size_t)i * STRETCH + column) * s.in + k, t[i]);
        }
    }
    // The next tiles lie to the right, or at the start of the next row of tiles.
    const int next = 4 * (first + count) + 2;
    const bool right = next < s.width - 2;
    const int ahead_row = 4 * down + (right ? 0 : 4), ahead_column = right ? next : 0;
    const size_t ahead = (size_t)std::min(4 * TILES, s.width - ahead_column) * s.in * sizeof(T);
    for (int i = 0; i < TILE; i++) {
        for (int tile = 0; tile < count; tile++)
            for (int k = 0; k < s.in; k += LANES) {
                const float* from = work.half + ((size_t)i * STRETCH + 4 * tile) * s.in + k;
                vec d[TILE], t[TILE];
                UNROLL for (int j = 0; j < TILE; j++) d[j] = load(from + (size_t)j * s.in);
                transform_input(d, t);
                UNROLL for (int j = 0; j < TILE; j++)
                    store(work.tiles + ((size_t)j * count + tile) * s.in + k, t[j]);
            }
        for (int j = 0; j < TILE; j++) {
            if (ahead_row + i < s.height)
                prefetch(x + s.input(film, ahead_row + i, ahead_column), ahead, j, TILE);
            MULTIPLY[count - 1](work.tiles + (size_t)j * count * s.in,
                                filters + (size_t)(i * TILE + j) * s.in * s.out,
                                work.products + (size_t)j * count * s.out, s.in, s.out);
        }
        for (int tile = 0; tile < count; tile++)
            for (int k = 0; k < s.out; k += LANES) {
                vec m[TILE], part[4];
                UNROLL for (int j = 0; j < TILE; j++)
                    m[j] = load(work.products + ((size_t)j * count + tile) * s.out + k);
                transform_output(m, part);
                UNROLL for (int j = 0; j < 4; j++)
                    store(work.sums + ((size_t)(i * TILES + tile) * 4 + j) * s.out + k, part[j]);
            }
    }
    const size_t step = (size_t)4 * TILES * s.out;
    for (int column = 2 * first; column < std::min(2 * (first + count), s.columns); column++)
        for (int k = 0; k < s.out; k += LANES) {
            const float* from = work.sums + (size_t)2 * (column - 2 * first) * s.out + k;
            const vec shift = load(bias + k);
            vec m[TILE], left[4], right[4];
            UNROLL for (int i = 0; i < TILE; i++) m[i] = load(from + i * step);
            transform_output(m, left);
            UNROLL for (int i = 0; i < TILE; i++) m[i] = load(from + i * step + s.out);
            transform_output(m, right);
            UNROLL for (int i = 0; i < 2; i++) {
                if (2 * down + i >= s.rows) continue;
                const size_t at = s.pixel(film, 2 * down + i, column) + k;
                keep(relu_pool(left[2 * i] + shift, right[2 * i] + shift, left[2 * i + 1] + shift,
                               right[2 * i + 1] + shift),
                     y + at, winners + at);
            }
        }
}

template <class T>
void block_forward(const T* x, const float* weight, const float* bias, T* y, uint8_t* winners,
                   const Block& s, int threads) {
    const int downs = (s.rows + 1) / 2, across = (s.columns + 1) / 2;
    const int groups = (across + TILES - 1) / TILES;
    Buffer filters((size_t)TILE * TILE * s.in * s.out);
    transform_filters(weight, filters, s.in, s.out);
    Pool::run(s.films * downs, threads, [&](Turn& turn) {
        const Workspace work(s);
        do
            for (int group = 0; group < groups; group++) {
                const int first = across * group / groups;
                const int count = across * (group + 1) / groups - first;
                forward_tiles(x, filters, bias, y, winners, s, turn.piece / downs,
                              turn.piece % downs, first, count, work);
            }
        while (turn.next());
    });
}

// -------------------------------------------------------------------------------------------------
// Backward convolution from the winners alone.

constexpr int SEGMENT_ROWS = 2, SEGMENT_COLUMNS = 16;  // pooled pixels whose input the L1 cache holds
constexpr int CAPACITY = SEGMENT_ROWS * SEGMENT_COLUMNS;
constexpr int IN_BLOCK = WIDE * LANES;  // input channels whose nine sums fit the registers
constexpr int PATCH_LINE = (2 * SEGMENT_COLUMNS + 2) * IN_BLOCK;
constexpr int PATCH = (2 * SEGMENT_ROWS + 2) * PATCH_LINE;

struct Event {  // a winner's gradient, and where in the patch its 3x3 inputs begin
    float gradient;
    int32_t at;
};

template <class T>
void bias_gradient(const T* dy, const uint8_t* winners, float* dbias, const Block& s, int film,
                   int begin, int end) {
    for (int c = 0; c < s.out; c += LANES) {
        vec sum{};
        for (size_t at = s.pixel(film, begin, 0) + c; at < s.pixel(film, end, 0); at += s.out) {
            const vec gradient = load(dy + at);
            sum += load_places(winners + at) == DEAD ? vec{} : gradient;
        }
        store(dbias + c, sum);
    }
}

// A strip's share, added to dweight[in / IN_BLOCK][out][TAPS][IN_BLOCK].
template <class T>
void weight_gradient(const T* x, const T* dy, const uint8_t* winners, float* dweight, const Block& s,
                     int film, int begin, int end, float* patch, Event* events) {
    for (int row = begin; row < end; row += SEGMENT_ROWS)
        for (int column = 0; column < s.columns; column += SEGMENT_COLUMNS) {
            const int height = std::min(SEGMENT_ROWS, end - row);
            const int width = std::min(SEGMENT_COLUMNS, s.columns - column);
            const bool right = column + width < s.columns;  // the next segment is there, else below
            const int ahead_row = 2 * row + (right ? 0 : 2 * height + 2);
            const int ahead_column = right ? 2 * (column + width) + 2 : 0;
            for (int group = 0; group < s.out; group += GROUP) {
                int count[GROUP] = {};
                for (int i = 0; i < height; i++)
                    for (int j = 0; j < width; j++) {
                        const size_t pixel = s.pixel(film, row + i, column + j) + group;
                        alignas(64) float gradient[GROUP];
                        for (int c = 0; c < GROUP; c += LANES) store(gradient + c, load(dy + pixel + c));
                        uint32_t alive = ~channels_with(winners + pixel, DEAD);
                        for (; alive; alive &= alive - 1) {
                            const int c = __builtin_ctz(alive), place = winners[pixel + c];
                            const int at = (2 * i + place / 2) * PATCH_LINE + (2 * j + place % 2) * IN_BLOCK;
                            events[c * CAPACITY + count[c]++] = {gradient[c], at};
                        }
                    }
                for (int block = 0; block < s.in; block += IN_BLOCK) {
                    for (int i = 0; i < 2 * height + 2; i++)
                        for (int j = 0; j < 2 * width + 2; j++)
                            for (int k = 0; k < IN_BLOCK; k += LANES)
                                store(patch + i * PATCH_LINE + j * IN_BLOCK + k,
                                      load(x + s.input(film, 2 * row + i, 2 * column + j) + block + k));
                    for (int c = 0; c < GROUP; c++) {
                        if (ahead_column + c < s.width)
                            for (int i = ahead_row; i < std::min(2 * row + 2 * height + 6, s.height); i++)
                                prefetch(x + s.input(film, i, ahead_column + c) + block,
                                         IN_BLOCK * sizeof(T), 0, 1);
                        const size_t filter = (size_t)block * s.out + (size_t)(group + c) * IN_BLOCK;
                        float* mine = dweight + filter * TAPS;
                        vec sum[TAPS * WIDE];
                        UNROLL for (int t = 0; t < TAPS * WIDE; t++) sum[t] = load(mine + t * LANES);
                        const Event* last = events + c * CAPACITY + count[c];
                        for (const Event* e = events + c * CAPACITY; e < last; e++) {
                            const float* seen = patch + e->at;
                            const vec gradient = broadcast(e->gradient);
                            UNROLL for (int dy = 0; dy < 3; dy++)
                                UNROLL for (int t = 0; t < 3 * WIDE; t++)
                                    sum[dy * 3 * WIDE + t] +=
                                        gradient * load(seen + dy * PATCH_LINE + t * LANES);
                        }
                        UNROLL for (int t = 0; t < TAPS * WIDE; t++) store(mine + t * LANES, sum[t]);
                    }
                }
            }
        }
}

// Adds the filters of the channels that won at PLACE, each times its gradient, to a 4x4 patch.
template <int PLACE>
inline void scatter(const uint8_t* winners, const float* gradient, const float* filters,
                    vec (&sum)[4][4]) {
    for (uint32_t won = channels_with(winners, PLACE); won; won &= won - 1) {
        const int c = __builtin_ctz(won);
        const vec value = broadcast(gradient[c]);
        UNROLL for (int tap = 0; tap < TAPS; tap++)
            sum[PLACE / 2 + tap / 3][PLACE % 2 + tap % 3] +=
                value * load(filters + (c * TAPS + tap) * LANES);
    }
}

// Lines 2 begin .. 2 end - 1 of the input's gradient, and those behind them if nothing follows.
// A 4x4 patch of sums walks along the windows; what it leaves on the next two lines is carried.
// filters[in / LANES][out][TAPS][LANES].
template <class T>
void input_gradient(const float* filters, const T* dy, const uint8_t* winners, T* dx, const Block& s,
                    int film, int begin, int end, float* carry, float* gradient) {
    const size_t line = (size_t)s.width * s.in;
    std::fill_n(carry, 2 * line, 0.0f);
    for (int row = std::max(begin - 1, 0); row < end; row++) {
        const size_t first = s.pixel(film, row, 0);
        for (int i = 0; i < s.columns * s.out; i += LANES) store(gradient + i, load(dy + first + i));
        T* out = row < begin ? nullptr : dx + s.input(film, 2 * row, 0);
        for (int k = 0; k < s.in; k += LANES) {
            vec sum[4][4] = {};
            const auto bring = [&](int column, int to) {
                const float* from = carry + (size_t)column * s.in + k;
                UNROLL for (int i = 0; i < 2; i++) sum[i][to] = load(from + i * line);
                UNROLL for (int i = 2; i < 4; i++) sum[i][to] = vec{};
            };
            const auto leave = [&](int column, int from) {
                const size_t at = (size_t)column * s.in + k;
                UNROLL for (int i = 0; i < 2; i++) {
                    if (out) store(out + i * line + at, sum[i][from]);
                    store(carry + i * line + at, sum[i + 2][from]);
                }
            };
            bring(0, 0), bring(1, 1);
            for (int column = 0; column < s.columns; column++) {
                bring(2 * column + 2, 2), bring(2 * column + 3, 3);
                for (int group = 0; group < s.out; group += GROUP) {
                    const size_t at = (size_t)column * s.out + group;
                    const float* mine = filters + ((size_t)k * s.out + (size_t)group * LANES) * TAPS;
                    scatter<0>(winners + first + at, gradient + at, mine, sum);
                    scatter<1>(winners + first + at, gradient + at, mine, sum);
                    scatter<2>(winners + first + at, gradient + at, mine, sum);
                    scatter<3>(winners + first + at, gradient + at, mine, sum);
                }
                leave(2 * column, 0), leave(2 * column + 1, 1);
                UNROLL for (int i = 0; i < 4; i++) sum[i][0] = sum[i][2], sum[i][1] = sum[i][3];
            }
            leave(2 * s.columns, 0), leave(2 * s.columns + 1, 1);
            if (out && s.width > 2 * s.columns + 2)  // an odd last column has no window
                for (int i = 0; i < 2; i++) store(out + (i + 1) * line - s.in + k, vec{});
        }
    }
    for (int i = 2 * s.rows; end == s.rows && i < s.height; i++) {
        const float* left = i < 2 * s.rows + 2 ? carry + (i - 2 * s.rows) * line : nullptr;
        for (size_t k = 0; k < line; k += LANES)
            store(dx + s.input(film, i, 0) + k, left ? load(left + k) : vec{});
    }
}

template <class T>
void block_backward(const T* x, const float* weight, const T* dy, const uint8_t* winners, T* dx,
                    float* dweight, float* dbias, const Block& s, int threads) {
    const int pieces = s.films * s.strips;
    const size_t weights = (size_t)s.in * s.out * TAPS, part = weights + s.out;
    Buffer filters(weights), partial(part * pieces);
    for (int o = 0; o < s.out; o++)
        for (int i = 0; i < s.in; i++)
            for (int tap = 0; tap < TAPS; tap++)
                filters[(((size_t)(i / LANES) * s.out + o) * TAPS + tap) * LANES + i % LANES] =
                    weight[((size_t)o * s.in + i) * TAPS + tap];
    Pool::run(pieces, threads, [&](Turn& turn) {
        Buffer patch(PATCH), events((size_t)GROUP * CAPACITY * sizeof(Event) / sizeof(float));
        Buffer carry((size_t)2 * s.width * s.in), gradient((size_t)s.columns * s.out);
        do {
            const int film = turn.piece / s.strips, strip = turn.piece % s.strips;
            const int begin = s.first_row(strip), end = s.first_row(strip + 1);
            float* mine = partial + part * turn.piece;
            std::fill_n(mine, weights, 0.0f);
            weight_gradient(x, dy, winners, mine, s, film, begin, end, patch, (Event*)(float*)events);
            bias_gradient(dy, winners, mine + weights, s, film, begin, end);
            if (dx) input_gradient<T>(filters, dy, winners, dx, s, film, begin, end, carry, gradient);
        } while (turn.next());
    });
    Pool::run(s.out, threads, [&](Turn& turn) {
        do {
            const int o = turn.piece;
            for (int block = 0; block < s.in; block += IN_BLOCK) {
                const float* from = partial + (size_t)block * s.out * TAPS + (size_t)o * IN_BLOCK * TAPS;
                vec sum[TAPS * WIDE] = {};
                for (int piece = 0; piece < pieces; piece++, from += part)
                    UNROLL for (int t = 0; t < TAPS * WIDE; t++) sum[t] += load(from + t * LANES);
                for (int t = 0; t < TAPS * WIDE; t++)
                    for (int lane = 0; lane < LANES; lane++) {
                        const int i = block + t % WIDE * LANES + lane;
                        dweight[((size_t)o * s.in + i) * TAPS + t / WIDE] = sum[t][lane];
                    }
            }
            dbias[o] = 0;
            for (int piece = 0; piece < pieces; piece++) dbias[o] += partial[part * piece + weights + o];
        } while (turn.next());
    });
}

}  // namespace

// -------------------------------------------------------------------------------------------------
// What Python calls: each layer, for float and for bfloat16. `dx` may be null.

#define EXPORT(NAME, T)                                                                             \
    extern "C" void pool_forward_##NAME(const T* x, T* y, uint8_t* winners, const Shape* s,         \
                                        int threads) {                                              \
        pool_forward(x, y, winners, *s, threads);                                                   \
    }                                                                                               \
    extern "C" void pool_backward_##NAME(const T* dy, const uint8_t* winners, T* dx,                \
                                         const Shape* s, int threads) {                             \
        pool_backward(dy, winners, dx, *s, threads);                                                \
    }                                                                                               \
    extern "C" void first_forward_##NAME(const float* x, const float* weight, const float* bias,    \
                                         T* y, uint8_t* winners, const Shape* s, int threads) {     \
        first_forward(x, weight, bias, y, winners, Block(*s), threads);                             \
    }                                                                                               \
    extern "C" void first_backward_##NAME(const float* x, const T* dy, const uint8_t* winners,      \
                                          float* dweight, float* dbias, const Shape* s,             \
                                          int threads) {                                            \
        first_backward(x, dy, winners, dweight, dbias, Block(*s), threads);                         \
    }                                                                                               \
    extern "C" void block_forward_##NAME(const T* x, const float* weight, const float* bias, T* y,  \
                                         uint8_t* winners, const Shape* s, int threads) {           \
        block_forward(x, weight, bias, y, winners, Block(*s), threads);                             \
    }                                                                                               \
    extern "C" void block_backward_##NAME(const T* x, const float* weight, const T* dy,             \
                                          const uint8_t* winners, T* dx, float* dweight,            \
                                          float* dbias, const Shape* s, int threads) {              \
        block_backward(x, weight, dy, winners, dx, dweight, dbias, Block(*s), threads);             \
    }

EXPORT(float32, float)
EXPORT(bfloat16, bf16)
