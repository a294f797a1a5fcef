// What trains a residual network beside its convolutions: batch normalisation with the sum and the
// ReLU behind it, and Muon's update.
#include "muon.hpp"
#include "norm.hpp"

using namespace hilum;

// `beside` is null where nothing is added, `dbeside` too; y is null where there is no ReLU.
#define NORM_FOR_TYPE(NAME, T)                                                                    \
    EXPORT void norm_forward_##NAME(const T* z, const T* beside, const float* weight,             \
                               const float* bias, T* y, float* mean, float* variance,             \
                               const Shape* s, int threads, float eps, int relu) {                \
        norm_forward(z, beside, relu, weight, bias, eps, y, mean, variance, Rows(*s), threads);   \
    }                                                                                             \
    EXPORT void norm_backward_##NAME(const T* z, const T* y, const T* dy, const float* weight,    \
                                const float* mean, const float* variance, T* dz, T* dbeside,      \
                                float* dweight, float* dbias, const Shape* s, int threads,        \
                                float eps) {                                                      \
        norm_backward(z, y, dy, weight, mean, variance, eps, dz, dbeside, dweight, dbias,         \
                      Rows(*s), threads);                                                         \
    }

NORM_FOR_TYPE(float32, float)
NORM_FOR_TYPE(bfloat16, bf16)

// `weights` come the largest first, so that the last threads to end have little left.
EXPORT void muon_step_float32(const Weights* weights, int count, const Momentum* momentum,
                              int threads) {
    Pool::run(count, threads, [=](Turn& turn) {
        do step(weights[turn.piece], *momentum);
        while (turn.next());
    });
}
