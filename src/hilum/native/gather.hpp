// The weight gradient's products, one winner at a time, in float.
#pragma once

#include "layers.hpp"

namespace hilum {

// A class of products lists winners filter by filter for a segment of windows, whose input the L1
// cache holds, and adds what each has seen, times its gradient, to the filter's sums.
template <class T>
class Single {
public:
    static constexpr int ROWS = 2, COLUMNS = 16;  // windows of a segment
    static constexpr int FILTERS = GROUP;         // listed together
    static constexpr int CHANNELS = WIDE * LANES; // input channels of a sum: nine fit the registers

    // The channel among these that a lane of the sums stands for.
    static int channel(int v, int lane) { return v * LANES + lane; }

    explicit Single(const Block& s)
        : s(s), patch((size_t)(2 * ROWS + 2) * LINE), events((size_t)FILTERS * CAPACITY) {}

    void list(const T* dy, const uint8_t* winners, int height, int width) {
        for (int c = 0; c < FILTERS; c++) end[c] = events + c * CAPACITY;
        for (int i = 0; i < height; i++)
            for (int j = 0; j < width; j++) {
                const size_t pixel = ((size_t)i * s.columns + j) * s.out;
                alignas(64) float gradient[FILTERS];
                alignas(64) int32_t at[FILTERS];
                for (int c = 0; c < FILTERS; c += LANES) {
                    const ivec place = load_places(winners + pixel + c);
                    store(gradient + c, load(dy + pixel + c));
                    *(ivec*)(at + c) = 2 * i * LINE + 2 * j * CHANNELS + (place >> 1) * LINE +
                                       (place & 1) * CHANNELS;
                }
                uint32_t alive = ~channels_with(winners + pixel, DEAD);
                for (; alive; alive &= alive - 1) {
                    const int c = __builtin_ctz(alive);
                    *end[c]++ = {gradient[c], at[c]};
                }
            }
    }

    // The input under the segment: CHANNELS of each pixel, from x on.
    void look_at(const T* x, int height, int width) {
        const size_t line = (size_t)s.width * s.in;
        for (int i = 0; i < 2 * height + 2; i++)
            for (int j = 0; j < 2 * width + 2; j++)
                for (int k = 0; k < CHANNELS; k += LANES)
                    store(patch + i * LINE + j * CHANNELS + k, load(x + i * line + j * s.in + k));
    }

    // Not inlined, so that the sums keep to registers.
    __attribute__((noinline)) void gather(int c, float* sums) const {
        vec sum[TAPS * WIDE];
        UNROLL for (int t = 0; t < TAPS * WIDE; t++) sum[t] = load(sums + t * LANES);
        for (const Event* e = events + c * CAPACITY; e < end[c]; e++) {
            const float* seen = patch + e->at;
            const vec gradient = broadcast(e->gradient);
            UNROLL for (int dy = 0; dy < 3; dy++)
                UNROLL for (int t = 0; t < 3 * WIDE; t++)
                    sum[dy * 3 * WIDE + t] += gradient * load(seen + dy * LINE + t * LANES);
        }
        UNROLL for (int t = 0; t < TAPS * WIDE; t++) store(sums + t * LANES, sum[t]);
    }

private:
    static constexpr int LINE = (2 * COLUMNS + 2) * CHANNELS;  // of the patch
    static constexpr int CAPACITY = ROWS * COLUMNS;
    struct Event {  // a winner's gradient, and where in the patch its 3x3 inputs begin
        float gradient;
        int32_t at;
    };
    const Block& s;
    const Buffer<float> patch;
    const Buffer<Event> events;
    Event* end[FILTERS];
};

}  // namespace hilum
