// Batch normalisation in training, with what follows it in a residual network: y = relu(n + beside),
// n = (z - mean) / sqrt(variance + eps) * weight + bias (Ioffe and Szegedy 2015), where `beside`
// and the ReLU may be left out. Torch goes over the maps for each of these apart; here they are gone
// over twice on the way there and twice on the way back.
#pragma once

#include <cmath>
#include <vector>

#include "layers.hpp"

namespace hilum {

constexpr int COLUMNS = 16 / LANES;  // vectors of channels that are added up at a time
constexpr int AT_ONCE = 4;           // sums of each, so that additions need not wait
constexpr int VALUES = 1 << 14;      // of a piece: it stays in the cache while it is read twice

struct Rows {  // pixels of all films as rows of channels, cut into pieces by the shape alone
    Rows(const Shape& s) : channels(s.in), count((long)s.films * s.height * s.width) {}
    const int channels;
    const long count;
    const int pieces = (int)std::max(1l, (count * channels + VALUES - 1) / VALUES);
    long first(int piece) const { return count * piece / pieces; }
};

// Calls what(row, channel, slot): vectors of 16 channels, rows in turn to AT_ONCE slots.
template <class What>
inline __attribute__((always_inline)) void by_columns(const Rows& r, int piece, int channel,
                                                      What what) {
    long row = r.first(piece);
    const long end = r.first(piece + 1);
    for (; row + AT_ONCE <= end; row += AT_ONCE)
        UNROLL for (int slot = 0; slot < AT_ONCE; slot++)
            UNROLL for (int v = 0; v < COLUMNS; v++)
                what((size_t)(row + slot) * r.channels + channel + v * LANES, v, slot);
    for (; row < end; row++)
        UNROLL for (int v = 0; v < COLUMNS; v++)
            what((size_t)row * r.channels + channel + v * LANES, v, 0);
}

struct Sums {
    vec sum[COLUMNS][AT_ONCE] = {};
    vec total(int v) const { return (sum[v][0] + sum[v][1]) + (sum[v][2] + sum[v][3]); }
};

// Mean and variance of each channel: of each piece first, then of all, as Chan, Golub and LeVeque
// (1983) put them together.
template <class T>
void moments(const T* z, const Rows& r, float* mean, float* variance, int threads) {
    const int c = r.channels;
    std::vector<float> means((size_t)r.pieces * c), squares((size_t)r.pieces * c);
    Pool::run(r.pieces, threads, [&](Turn& turn) {
        do {
            const int piece = turn.piece;
            const float share = 1.f / std::max(1l, r.first(piece + 1) - r.first(piece));
            for (int k = 0; k < c; k += 16) {
                Sums first, second;
                by_columns(r, piece, k, [&](size_t at, int v, int slot) {
                    first.sum[v][slot] += load(z + at);
                });
                vec middle[COLUMNS];
                UNROLL for (int v = 0; v < COLUMNS; v++) middle[v] = first.total(v) * share;
                by_columns(r, piece, k, [&](size_t at, int v, int slot) {
                    const vec off = load(z + at) - middle[v];
                    second.sum[v][slot] += off * off;
                });
                UNROLL for (int v = 0; v < COLUMNS; v++) {
                    store(&means[(size_t)piece * c + k + v * LANES], middle[v]);
                    store(&squares[(size_t)piece * c + k + v * LANES], second.total(v));
                }
            }
        } while (turn.next());
    });
    for (int k = 0; k < c; k++) {
        double all = 0, about = 0;
        for (int p = 0; p < r.pieces; p++)
            all += (double)(r.first(p + 1) - r.first(p)) * means[(size_t)p * c + k];
        all /= r.count;
        for (int p = 0; p < r.pieces; p++) {
            const double off = means[(size_t)p * c + k] - all;
            about += squares[(size_t)p * c + k] + off * off * (r.first(p + 1) - r.first(p));
        }
        mean[k] = (float)all;
        variance[k] = (float)(about / r.count);
    }
}

// z[rows][channels] to y. What a piece reads all along is captured by value here and below: behind
// a reference it would be loaded at every use.
template <class T>
void normalise(const T* z, const T* beside, bool relu, const float* weight, const float* bias,
               float eps, T* y, const float* mean, const float* variance, const Rows& r,
               int threads) {
    const int c = r.channels;
    std::vector<float> factor(c), offset(c);
    for (int k = 0; k < c; k++) {
        factor[k] = weight[k] / std::sqrt(variance[k] + eps);
        offset[k] = bias[k] - mean[k] * factor[k];
    }
    Pool::run(r.pieces, threads, [=, &r, &factor, &offset](Turn& turn) {
        do {
            for (long row = r.first(turn.piece); row < r.first(turn.piece + 1); row++)
                for (int k = 0; k < c; k += LANES) {
                    const size_t at = (size_t)row * c + k;
                    vec v = load(z + at) * load(&factor[k]) + load(&offset[k]);
                    if (beside) v += load(beside + at);
                    if (relu) v = v < vec{} ? vec{} : v;  // a NaN stays one
                    store(y + at, v);
                }
        } while (turn.next());
    });
}

// The same by the mean and the variance (the biased one) of z, which are given back.
template <class T>
void norm_forward(const T* z, const T* beside, bool relu, const float* weight, const float* bias,
                  float eps, T* y, float* mean, float* variance, const Rows& r, int threads) {
    moments(z, r, mean, variance, threads);
    normalise(z, beside, relu, weight, bias, eps, y, mean, variance, r, threads);
}

// dy to dz, dweight and dbias, and to dbeside unless that is null; y is read where there is a ReLU.
template <class T>
void norm_backward(const T* z, const T* y, const T* dy, const float* weight, const float* mean,
                   const float* variance, float eps, T* dz, T* dbeside, float* dweight,
                   float* dbias, const Rows& r, int threads) {
    const int c = r.channels;
    const auto passed = [=](size_t at) {
        const vec g = load(dy + at);
        return y ? (load(y + at) <= vec{} ? vec{} : g) : g;
    };
    std::vector<float> sums((size_t)r.pieces * c * 2);
    Pool::run(r.pieces, threads, [=, &r, &sums](Turn& turn) {
        do {
            for (int k = 0; k < c; k += 16) {
                Sums plain, by_z;
                vec middle[COLUMNS];
                UNROLL for (int v = 0; v < COLUMNS; v++) middle[v] = load(mean + k + v * LANES);
                by_columns(r, turn.piece, k, [&](size_t at, int v, int slot) {
                    const vec g = passed(at);
                    plain.sum[v][slot] += g;
                    by_z.sum[v][slot] += g * (load(z + at) - middle[v]);
                });
                UNROLL for (int v = 0; v < COLUMNS; v++) {
                    float* to = &sums[(size_t)turn.piece * c * 2 + k + v * LANES];
                    store(to, plain.total(v));
                    store(to + c, by_z.total(v));
                }
            }
        } while (turn.next());
    });
    // dz = factor (g - mean of g - (z - mean) (mean of g (z - mean)) / (variance + eps))
    std::vector<float> factor(c), slope(c), offset(c);
    for (int k = 0; k < c; k++) {
        double plain = 0, by_z = 0;
        for (int p = 0; p < r.pieces; p++) {
            plain += sums[(size_t)p * c * 2 + k];
            by_z += sums[(size_t)p * c * 2 + c + k];
        }
        const double spread = 1 / std::sqrt((double)variance[k] + eps);
        dweight[k] = (float)(by_z * spread);
        dbias[k] = (float)plain;
        const double tilt = by_z * spread * spread / r.count;
        factor[k] = (float)(weight[k] * spread);
        slope[k] = (float)(-factor[k] * tilt);
        offset[k] = (float)(-factor[k] * (plain / r.count)) - slope[k] * mean[k];
    }
    Pool::run(r.pieces, threads, [=, &r, &factor, &slope, &offset](Turn& turn) {
        do {
            for (long row = r.first(turn.piece); row < r.first(turn.piece + 1); row++)
                for (int k = 0; k < c; k += LANES) {
                    const size_t at = (size_t)row * c + k;
                    const vec g = passed(at);
                    if (dbeside) store(dbeside + at, g);
                    store(dz + at, g * load(&factor[k]) + load(z + at) * load(&slope[k]) +
                                       load(&offset[k]));
                }
        } while (turn.next());
    });
}

}  // namespace hilum
