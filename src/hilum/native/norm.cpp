// Batch normalisation with the sum and the ReLU behind it.
#include "norm.hpp"

using namespace hilum;

// `beside` is null where nothing is added, `dbeside` too; y is null where there is no ReLU.
#define NORM(DIRECTION, CALL)                                                                     \
    (beside ? (relu ? norm_##DIRECTION<true, true> CALL : norm_##DIRECTION<true, false> CALL)     \
            : (relu ? norm_##DIRECTION<false, true> CALL : norm_##DIRECTION<false, false> CALL))
#define NORM_FOR_TYPE(NAME, T)                                                                    \
    EXPORT void norm_forward_##NAME(const T* z, const T* beside, const float* weight,             \
                               const float* bias, T* y, float* mean, float* variance,             \
                               const Shape* s, int threads, float eps, int relu) {                \
        NORM(forward, (z, beside, weight, bias, eps, y, mean, variance, Rows(*s), threads));      \
    }                                                                                             \
    EXPORT void norm_backward_##NAME(const T* z, const T* y, const T* dy, const float* weight,    \
                                const float* mean, const float* variance, T* dz, T* beside,       \
                                float* dweight, float* dbias, const Shape* s, int threads,        \
                                float eps) {                                                      \
        const bool relu = y != nullptr;                                                           \
        NORM(backward, (z, y, dy, weight, mean, variance, eps, dz, beside, dweight, dbias,        \
                        Rows(*s), threads));                                                      \
    }

NORM_FOR_TYPE(float32, float)
NORM_FOR_TYPE(bfloat16, bf16)
