// Layers for the CPU: blocks of "3x3 convolution without a frame, bias, ReLU, 2x2 max-pooling", and
// what residual networks are made of: the convolution in a frame of zeros (framed.hpp), and batch
// normalisation with the sum and the ReLU behind it (norm.hpp). Beside them the augmentation of films
// (augment.hpp), and their resizing before (resize.hpp).
//
// Maps are NHWC (torch's channels_last), float or bfloat16 in memory, sums in float. In a block a
// pooled pixel keeps its winner as one byte: the place 0..3 in its 2x2 window, row by row, or DEAD where
// ReLU cut it off. Neither the map before the pool nor its gradient is ever written: only winners
// carry a gradient, so the backward sums visit a quarter of the products, and fewer where units
// are dead.
//
// Work is cut into pieces by the shape alone, and the sums of the pieces are added in their order,
// so a result does not depend on the number of threads.
#include "augment.hpp"
#include "first.hpp"
#include "framed.hpp"
#include "norm.hpp"
#include "pooling.hpp"
#include "resize.hpp"
#include "winners.hpp"
#include "winograd.hpp"

using namespace hilum;

// What Python calls: each layer, for float and for bfloat16. `dx` may be null.
#define EXPORT extern "C" __attribute__((visibility("default"))) void
#define FOR_TYPE(NAME, T)                                                                         \
    EXPORT pool_forward_##NAME(const T* x, T* y, uint8_t* winners, const Shape* s, int threads) { \
        pool_forward(x, y, winners, *s, threads);                                                 \
    }                                                                                             \
    EXPORT pool_backward_##NAME(const T* dy, const uint8_t* winners, T* dx, const Shape* s,       \
                                int threads) {                                                    \
        pool_backward(dy, winners, dx, *s, threads);                                              \
    }                                                                                             \
    EXPORT first_forward_##NAME(const float* x, const float* weight, const float* bias, T* y,     \
                                uint8_t* winners, const Shape* s, int threads) {                  \
        first_forward(x, weight, bias, y, winners, Block(*s), threads);                           \
    }                                                                                             \
    EXPORT first_backward_##NAME(const float* x, const T* dy, const uint8_t* winners,             \
                                 float* dweight, float* dbias, const Shape* s, int threads) {     \
        first_backward(x, dy, winners, dweight, dbias, Block(*s), threads);                       \
    }                                                                                             \
    EXPORT block_forward_##NAME(const T* x, const float* weight, const float* bias, T* y,         \
                                uint8_t* winners, const Shape* s, int threads) {                  \
        block_forward(x, weight, bias, y, winners, Block(*s), threads);                           \
    }                                                                                             \
    EXPORT block_backward_##NAME(const T* x, const float* weight, const T* dy,                    \
                                 const uint8_t* winners, T* dx, float* dweight, float* dbias,     \
                                 const Shape* s, int threads) {                                   \
        block_backward(x, weight, dy, winners, dx, dweight, dbias, Block(*s), threads);           \
    }                                                                                             \
    EXPORT framed_forward_##NAME(const T* x, const float* weight, T* y, const Shape* s,           \
                                 int threads) {                                                   \
        framed_forward(x, weight, y, Framed(*s), threads);                                        \
    }                                                                                             \
    EXPORT framed_backward_##NAME(const T* x, const float* weight, const T* dy, T* dx,            \
                                  float* dweight, const Shape* s, int threads) {                  \
        framed_backward(x, weight, dy, dx, dweight, Framed(*s), threads);                         \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, bf16)

EXPORT augment_float32(const uint8_t* films, const float* affine, const float* sharpness,
                       const float* gamma, const float* contrast, const float* field,
                       const float* noise, const float* cutout, const float* row, float* y,
                       const Shape* s, int threads) {
    augment(films, {affine, sharpness, gamma, contrast, field, noise, row, cutout}, y, s->films,
            s->width, threads);
}

// Whether there was memory enough: films come from strangers, in processes with little of it.
extern "C" __attribute__((visibility("default"))) int resize_uint8(const uint8_t* film,
                                                                   uint8_t* out, int height,
                                                                   int width, int size) {
    try {
        resize(film, out, height, width, size);
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

// `beside` is null where nothing is added, `dbeside` too; y is null where there is no ReLU.
#define NORM(DIRECTION, CALL)                                                                \
    (beside ? (relu ? norm_##DIRECTION<true, true> CALL : norm_##DIRECTION<true, false> CALL) \
            : (relu ? norm_##DIRECTION<false, true> CALL : norm_##DIRECTION<false, false> CALL))
#define NORM_FOR_TYPE(NAME, T)                                                                   \
    EXPORT norm_forward_##NAME(const T* z, const T* beside, const float* weight,                 \
                               const float* bias, T* y, float* mean, float* variance,            \
                               const Shape* s, int threads, float eps, int relu) {               \
        NORM(forward, (z, beside, weight, bias, eps, y, mean, variance, Rows(*s), threads));     \
    }                                                                                            \
    EXPORT norm_backward_##NAME(const T* z, const T* y, const T* dy, const float* weight,        \
                                const float* mean, const float* variance, T* dz, T* beside,      \
                                float* dweight, float* dbias, const Shape* s, int threads,       \
                                float eps) {                                                     \
        const bool relu = y != nullptr;                                                          \
        NORM(backward, (z, y, dy, weight, mean, variance, eps, dz, beside, dweight, dbias,       \
                        Rows(*s), threads));                                                     \
    }

NORM_FOR_TYPE(float32, float)
NORM_FOR_TYPE(bfloat16, bf16)
