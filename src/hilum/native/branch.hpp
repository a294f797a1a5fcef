// A convolution with the normalisation behind it, as Python hands it over.
#pragma once

#include "norm.hpp"

namespace hilum {

struct Branch {  // a convolution and its normalisation
    const float *weight, *gain, *bias;
    float *mean, *variance;  // it goes by: in training they are taken from the batch
    float *running_mean, *running_variance;  // of what trains; else not looked at
    int64_t* batches;
    float *dweight, *dgain, *dbias;
    float eps, momentum;  // negative: every batch counts alike
};

// Running statistics follow the batch's as torch's do: the unbiased variance.
inline void remember(const Branch& b, const Rows& r) {
    ++*b.batches;
    const float share = b.momentum < 0 ? 1.f / *b.batches : b.momentum;
    const float unbiased = (float)r.count / (r.count - 1);
    for (int k = 0; k < r.channels; k++) {
        b.running_mean[k] += share * (b.mean[k] - b.running_mean[k]);
        b.running_variance[k] += share * (b.variance[k] * unbiased - b.running_variance[k]);
    }
}

template <class T>
void branch_forward(const T* z, const T* beside, bool relu, const Branch& b, T* y, const Rows& r,
                    bool trains, int threads) {
    if (trains) {
        moments(z, r, b.mean, b.variance, threads);
        remember(b, r);
    }
    normalise(z, beside, relu, b.gain, b.bias, b.eps, y, b.mean, b.variance, r, threads);
}

template <class T>
void branch_backward(const T* z, const T* y, const T* dy, const Branch& b, T* dz, T* dbeside,
                     const Rows& r, int threads) {
    norm_backward(z, y, dy, b.gain, b.mean, b.variance, b.eps, dz, dbeside, b.dgain, b.dbias, r,
                  threads);
}

}  // namespace hilum
