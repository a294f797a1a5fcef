// Augmentation of films, one after another while they lie in the cache: what
// hilum.training.augment does with torch, there one pass over the whole batch for each transform.
#pragma once

#include <cmath>
#include <vector>

#include "layers.hpp"

namespace hilum {

// What was drawn for each film; null where films are left as they are.
struct Drawn {
    const float *affine,   // 6: across and down, each by column, by itself, by row
        *sharpness,        // 2: standard deviation of the blur; share of it, below 0 to sharpen
        *gamma,            // 1: exponent
        *contrast,         // 2: factor about the mean, by how much the mean is moved
        *field,            // 18: waves of contrast and of brightness
        *noise,            // 2: where in the row it begins, standard deviation
        *row, *cutout;     // 6: half width and height, middle by column and row, whether, grey
};

constexpr int WAVES = 3;

inline vec clamped(vec v, float low, float high) {  // a NaN becomes `low`
    v = v > low ? v : broadcast(low);
    return v > high ? broadcast(high) : v;
}

inline vec nearest_whole(vec v) { return (v + 12582912.f) - 12582912.f; }  // below 2^22

// 2^v to 1e-7 of itself: of the fraction by its Taylor series, of the whole by the exponent's bits.
inline vec power_of_two(vec v) {
    v = clamped(v, -126, 126);
    const vec whole = nearest_whole(v), f = (v - whole) * 0.693147181f;
    vec sum = broadcast(1.f / 5040);
    for (float term : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f})
        sum = sum * f + term;
    const ivec exponent = (__builtin_convertvector(whole, ivec) + 127) << 23;
    return sum * (vec)exponent;
}

// log2 of normal numbers: the exponent, and the series of artanh for what is left of it.
inline vec log_of_two(vec v) {
    const ivec bits = (ivec)v - 0x3f3504f3;  // sqrt(1/2): the rest lies about 1
    const ivec exponent = bits >> 23;
    const vec rest = (vec)((bits & 0x7fffff) + 0x3f3504f3);
    const vec t = (rest - 1) / (rest + 1), square = t * t;
    vec sum = broadcast(1.f / 9);
    for (float term : {1.f / 7, 1.f / 5, 1.f / 3, 1.f}) sum = sum * square + term;
    return __builtin_convertvector(exponent, vec) + sum * t * 2.88539008f;
}

// A square film with lines of whole vectors; what is beyond the film's width is never looked at.
struct Canvas {
    explicit Canvas(int size)
        : size(size),
          line((size + LANES - 1) / LANES * LANES),
          pixels((size_t)size * line),
          spare((size_t)size * line),
          weights(size),
          padded(3 * line + 2 * LANES),
          columns(line),
          bytes((size_t)size * (size + 1) + sizeof(int32_t)) {
        std::fill_n((float*)pixels, (size_t)size * line, 0.f);
        std::fill_n((uint8_t*)bytes, (size_t)size * (size + 1) + sizeof(int32_t), 0);
        for (int i = 0; i < line; i++) columns[i] = position(i);
        for (int k = 0; k < WAVES; k++)
            for (int i = 0; i < line; i++)
                waves[k].push_back(std::cos((float)M_PI * k * (columns[i] + 1) / 2));
    }
    const int size, line;
    const Buffer<float> pixels, spare, weights, padded, columns;
    const Buffer<uint8_t> bytes;
    std::vector<float> waves[WAVES];

    float position(int i) const { return (i + 0.5f) * (2.f / size) - 1; }
    float* row(int i) const { return pixels + (size_t)i * line; }

    template <class What>
    void each(What what) const {
        for (int i = 0; i < size; i++)
            for (int j = 0; j < line; j += LANES)
                store(row(i) + j, what(load(row(i) + j)));
    }

    float mean() const {
        double sum = 0;
        for (int i = 0; i < size; i++) {
            vec part{};
            int j = 0;
            for (; j + LANES <= size; j += LANES) part += load(row(i) + j);
            for (int lane = 0; lane < LANES; lane++) sum += part[lane];
            for (; j < size; j++) sum += row(i)[j];
        }
        return (float)(sum / ((double)size * size));
    }
};

// Bilinear between pixels; beyond the border the nearest.
inline void place(const uint8_t* film, const float* a, const Canvas& to) {
    const int size = to.size;
    // Of the last column and row the next ones count nothing, but are read.
    std::copy_n(film, (size_t)size * size, (uint8_t*)to.bytes);
    for (int i = 0; i < size; i++) {
        const float right = a[2] * to.position(i), under = a[5] * to.position(i);
        for (int j = 0; j < size; j += LANES) {
            const vec column = load(to.columns + j);
            const vec x = (a[0] * column + a[1]) + right, y = (a[3] * column + a[4]) + under;
            const vec across = clamped(((x + 1) * (float)size - 1) / 2, 0, size - 1);
            const vec down = clamped(((y + 1) * (float)size - 1) / 2, 0, size - 1);
            const ivec left = __builtin_convertvector(across, ivec);
            const ivec top = __builtin_convertvector(down, ivec);
            const vec h = across - __builtin_convertvector(left, vec);
            const vec v = down - __builtin_convertvector(top, vec);
            const auto between = [=](ivec pair) {
                const vec first = __builtin_convertvector(pair & 255, vec);
                return first + h * (__builtin_convertvector(pair >> 8 & 255, vec) - first);
            };
            const ivec at = top * size + left;
            const vec upper = between(gather_words(to.bytes, at));
            const vec lower = between(gather_words(to.bytes + size, at));
            store(to.row(i) + j, upper + v * (lower - upper));
        }
    }
}

// share * (rows and columns blurred by a bell, renormalised at the border) + (1 - share) * film, in
// each direction.
inline void sharpen(float sigma, float share, const Canvas& c) {
    const int size = c.size, reach = (int)std::min((float)(size - 1), std::ceil(6 * sigma));
    float* bell = c.weights;
    for (int d = 0; d <= reach; d++) bell[d] = std::exp(-(float)(d * d) / (2 * sigma * sigma));
    const auto total = [=](int i) {
        float sum = 0;
        for (int k = std::max(0, i - reach); k <= std::min(size - 1, i + reach); k++)
            sum += bell[std::abs(k - i)];
        return sum;
    };
    for (int i = 0; i < size; i++) {  // each row from those above and below
        const float part = share / total(i);
        for (int j = 0; j < c.line; j += LANES) {
            vec sum{};
            for (int k = std::max(0, i - reach); k <= std::min(size - 1, i + reach); k++)
                sum += bell[std::abs(k - i)] * load(c.row(k) + j);
            store(c.spare + (size_t)i * c.line + j, part * sum + (1 - share) * load(c.row(i) + j));
        }
    }
    float* middle = c.padded + c.line;  // zeros before and behind it
    std::fill_n((float*)c.padded, 3 * c.line + 2 * LANES, 0.f);
    std::vector<float> parts(c.line);
    for (int j = 0; j < size; j++) parts[j] = share / total(j);
    for (int i = 0; i < size; i++) {
        std::copy_n(c.spare + (size_t)i * c.line, size, middle);
        for (int j = 0; j < c.line; j += LANES) {
            vec sum{};
            for (int d = -reach; d <= reach; d++) sum += bell[std::abs(d)] * load(middle + j + d);
            const vec value = load(&parts[j]) * sum + (1 - share) * load(middle + j);
            store(c.row(i) + j, clamped(value, 0, 1));
        }
    }
}

inline void contrast(const float* about, const float* field, const Canvas& c) {
    const float mean = c.mean(), moved = mean + about[1];
    for (int i = 0; i < c.size; i++) {
        float by[2][WAVES] = {};  // the waves of this row, contrast and brightness
        for (int k = 0; field && k < 2 * WAVES * WAVES; k++)
            by[k / (WAVES * WAVES)][k % WAVES] += field[k] * c.waves[k / WAVES % WAVES][i];
        for (int j = 0; j < c.line; j += LANES) {
            vec value = (load(c.row(i) + j) - mean) * about[0];
            if (field) {
                vec sum[2] = {};
                for (int k = 0; k < WAVES; k++)
                    for (int f = 0; f < 2; f++) sum[f] += by[f][k] * load(&c.waves[k][j]);
                value = value * power_of_two(sum[0] * 1.44269504f) + 0.25f * sum[1];
            }
            store(c.row(i) + j, clamped(value + moved, 0, 1));
        }
    }
}

inline void add_noise(const float* from, float deviation, const Canvas& c) {
    for (int i = 0; i < c.size; i++)
        for (int j = 0; j < c.size; j++)
            c.row(i)[j] += deviation * from[(size_t)i * c.size + j];
}

inline void cut(const float* a, const Canvas& c) {
    for (int i = 0; i < c.size; i++) {
        if (std::abs(c.position(i) - a[3]) >= a[1]) continue;
        for (int j = 0; j < c.size; j++)
            if (std::abs(c.position(j) - a[2]) < a[0]) c.row(i)[j] = a[5];
    }
}

// films[count][size][size] to y[count][size][size], 0 to 255.
inline void augment(const uint8_t* films, const Drawn& drawn, float* y, int count, int size,
                    int threads) {
    const size_t pixels = (size_t)size * size;
    Pool::run(count, threads, [&](Turn& turn) {
        const Canvas c(size);
        do {
            const size_t n = turn.piece;
            const uint8_t* film = films + n * pixels;
            if (drawn.affine)
                place(film, drawn.affine + 6 * n, c);
            else
                for (int i = 0; i < size; i++) std::copy_n(film + i * size, size, c.row(i));
            c.each([](vec v) { return v / 255; });
            if (drawn.sharpness && drawn.sharpness[2 * n + 1])
                sharpen(drawn.sharpness[2 * n], drawn.sharpness[2 * n + 1], c);
            if (drawn.gamma)
                c.each([exponent = drawn.gamma[n]](vec v) {
                    return power_of_two(exponent * log_of_two(clamped(v, 1e-3f, 1)));
                });
            if (drawn.contrast)
                contrast(drawn.contrast + 2 * n, drawn.field ? drawn.field + 18 * n : nullptr, c);
            if (drawn.noise)
                add_noise(drawn.row + (size_t)drawn.noise[2 * n], drawn.noise[2 * n + 1], c);
            if (drawn.cutout && drawn.cutout[6 * n + 4]) cut(drawn.cutout + 6 * n, c);
            for (int i = 0; i < size; i++)
                for (int j = 0; j < size; j++)
                    y[n * pixels + i * size + j] =
                        std::min(std::max(c.row(i)[j], 0.f), 1.f) * 255;
        } while (turn.next());
    });
}

}  // namespace hilum
