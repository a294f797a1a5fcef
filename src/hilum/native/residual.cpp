// The layers of a residual network: its convolution in a frame of zeros, batch normalisation with the
// sum and the ReLU behind it, a block of them as a whole, and the stem.
#include "residual.hpp"
#include "stem.hpp"

using namespace hilum;

// `dx` may be null, and so may `beside` and `dbeside`, where nothing is added, and y of
// norm_backward, where there is no ReLU.
#define FOR_TYPE(NAME, T)                                                                         \
    EXPORT int framed_forward_##NAME(const T* x, const float* weight, T* y, const Shape* s,       \
                                 int threads) {                                                   \
        return answer([&] { framed_forward(x, weight, y, Framed(*s), threads); });                \
    }                                                                                             \
    EXPORT int framed_backward_##NAME(const T* x, const float* weight, const T* dy, T* dx,        \
                                  float* dweight, const Shape* s, int threads) {                  \
        return answer([&] { framed_backward(x, weight, dy, dx, dweight, Framed(*s), threads); }); \
    }                                                                                             \
    EXPORT int norm_forward_##NAME(const T* z, const T* beside, const float* weight,              \
                               const float* bias, T* y, float* mean, float* variance,             \
                               const Shape* s, int threads, float eps, int relu) {                \
        return answer([&] {                                                                       \
            norm_forward(z, beside, relu, weight, bias, eps, y, mean, variance, Rows(*s),         \
                         threads);                                                                \
        });                                                                                       \
    }                                                                                             \
    EXPORT int norm_backward_##NAME(const T* z, const T* y, const T* dy, const float* weight,     \
                                const float* mean, const float* variance, T* dz, T* dbeside,      \
                                float* dweight, float* dbias, const Shape* s, int threads,        \
                                float eps) {                                                      \
        return answer([&] {                                                                       \
            norm_backward(z, y, dy, weight, mean, variance, eps, dz, dbeside, dweight, dbias,     \
                          Rows(*s), threads);                                                     \
        });                                                                                       \
    }                                                                                             \
    EXPORT int residual_forward_##NAME(const T* x, T* memory, T* y, const Branch* branches,       \
                                   const Residual* s, int threads) {                              \
        return answer([&] { residual_forward(x, branches, memory, y, *s, threads); });            \
    }                                                                                             \
    EXPORT int residual_backward_##NAME(const T* x, const T* memory, const T* y, const T* dy,     \
                                    T* dx, const Branch* branches, const Residual* s,             \
                                    int threads) {                                                \
        return answer([&] { residual_backward(x, memory, y, dy, branches, dx, *s, threads); });   \
    }                                                                                             \
    EXPORT int stem_forward_##NAME(const float* x, T* z, T* y, const Branch* branch,              \
                               const Residual* s, int threads) {                                  \
        return answer([&] {                                                                       \
            stem_forward(x, branch->weight, z, *s, threads);                                      \
            branch_forward(z, (const T*)nullptr, true, *branch, y, s->inner(s->out), s->trains,   \
                           threads);                                                              \
        });                                                                                       \
    }                                                                                             \
    EXPORT int stem_backward_##NAME(const float* x, const T* z, const T* y, const T* dy,          \
                                const Branch* branch, const Residual* s, int threads) {           \
        return answer([&] {                                                                       \
            Buffer<T> dz(s->values(s->out));                                                      \
            branch_backward(z, y, dy, *branch, (T*)dz, (T*)nullptr, s->inner(s->out), threads);   \
            stem_backward(x, (T*)dz, branch->dweight, *s, threads);                               \
        });                                                                                       \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, bf16)
