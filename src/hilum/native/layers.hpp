// What all layers share: shapes, memory, and the step from four values to a winner.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "pool.hpp"
#include "vectors.hpp"

// What Python calls.
#define EXPORT extern "C" __attribute__((visibility("default")))

namespace hilum {

constexpr int MEMORY_FULL = -1;  // an answer that Python makes an error of (library.py)

// Does what Python has called for: no exception may reach Python, nor torch behind it.
template <class Work>
int answer(Work work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return MEMORY_FULL;
    }
}

constexpr int DEAD = 4;
constexpr int TAPS = 9;               // of a 3x3 filter
constexpr int GROUP = 32;             // channels come in multiples of this (pooling alone: of 16)
constexpr int WIDE = AVX512 ? 2 : 1;  // vectors of channels whose nine taps fit the registers

template <class Number>
struct Buffer {  // aligned to a cache line, not yet written
    explicit Buffer(size_t count)
        : memory((Number*)std::aligned_alloc(64, (count * sizeof(Number) + 127) / 64 * 64),
                 std::free) {
        if (!memory) throw std::bad_alloc();
    }
    operator Number*() const { return memory.get(); }
    std::unique_ptr<Number, void (*)(void*)> memory;
};

struct Shape {  // the input of a layer, and its output's channels
    int films, height, width, in, out;
};

struct Block : Shape {  // of a block: convolution takes two pixels, pooling halves
    explicit Block(const Shape& shape) : Shape(shape) {}
    const int rows = (height - 2) / 2, columns = (width - 2) / 2;
    const int seen = 2 * columns + 2;           // pixels of a line that windows see: not an odd last
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

// Four values, each with `shift` added: once, to the largest, which is the same but for ties that
// rounding would make.
inline Pooled relu_pool(vec a, vec b, vec c, vec d, vec shift = vec{}) {
    Pooled best;
    if (__builtin_expect(any_nan(a, b, c, d), false)) {
        best = pool_with_nan(a, b, c, d);
    } else {
        const vec top = larger(a, b), bottom = larger(c, d);
        const ivec above = b > a ? ivec{} + 1 : ivec{}, below = d > c ? ivec{} + 3 : ivec{} + 2;
        best = {larger(top, bottom), bottom > top ? below : above};
    }
    best.value += shift;
    const ivec dead = best.value <= vec{};
    return {dead ? vec{} : best.value, dead ? ivec{} + DEAD : best.winner};
}

template <class T>
inline void keep(Pooled pooled, T* y, uint8_t* winners) {
    store(y, pooled.value);
    store_low(winners, pooled.winner);
}

// A strip's share of it.
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

}  // namespace hilum
