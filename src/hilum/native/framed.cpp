// The convolution of residual networks, in a frame of zeros.
#include "framed.hpp"

using namespace hilum;

// `dx` may be null.
#define FOR_TYPE(NAME, T)                                                                         \
    EXPORT void framed_forward_##NAME(const T* x, const float* weight, T* y, const Shape* s,      \
                                 int threads) {                                                   \
        framed_forward(x, weight, y, Framed(*s), threads);                                        \
    }                                                                                             \
    EXPORT void framed_backward_##NAME(const T* x, const float* weight, const T* dy, T* dx,       \
                                  float* dweight, const Shape* s, int threads) {                  \
        framed_backward(x, weight, dy, dx, dweight, Framed(*s), threads);                         \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, bf16)
