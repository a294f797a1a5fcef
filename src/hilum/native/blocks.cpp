// Layers of the paper's network: blocks of "3x3 convolution without a frame, bias, ReLU, 2x2
// max-pooling".
//
// Maps are NHWC (torch's channels_last), float or bfloat16 in memory, sums in float. In a block a
// pooled pixel keeps its winner as one byte: the place 0..3 in its 2x2 window, row by row, or DEAD where
// ReLU cut it off. But for matrix tiles, neither the map before the pool nor its gradient is ever written: only winners
// carry a gradient, so the backward sums visit a quarter of the products, and fewer where units
// are dead.
#include "first.hpp"
#include "pooling.hpp"
#include "winners.hpp"
#include "forward.hpp"

using namespace hilum;

// `dx` may be null.
#define FOR_TYPE(NAME, T)                                                                         \
    EXPORT int pool_forward_##NAME(const T* x, T* y, uint8_t* winners, const Shape* s,            \
                                   int threads) {                                                 \
        return answer([&] { pool_forward(x, y, winners, *s, threads); });                         \
    }                                                                                             \
    EXPORT int pool_backward_##NAME(const T* dy, const uint8_t* winners, T* dx, const Shape* s,   \
                                int threads) {                                                    \
        return answer([&] { pool_backward(dy, winners, dx, *s, threads); });                      \
    }                                                                                             \
    EXPORT int first_forward_##NAME(const float* x, const float* weight, const float* bias, T* y, \
                                uint8_t* winners, const Shape* s, int threads) {                  \
        return answer([&] { first_forward(x, weight, bias, y, winners, Block(*s), threads); });   \
    }                                                                                             \
    EXPORT int first_backward_##NAME(const float* x, const T* dy, const uint8_t* winners,         \
                                 float* dweight, float* dbias, const Shape* s, int threads) {     \
        return answer([&] {                                                                       \
            first_backward(x, dy, winners, dweight, dbias, Block(*s), threads);                   \
        });                                                                                       \
    }                                                                                             \
    EXPORT int block_forward_##NAME(const T* x, const float* weight, const float* bias, T* y,     \
                                uint8_t* winners, const Shape* s, int threads) {                  \
        return answer([&] { block_forward(x, weight, bias, y, winners, Block(*s), threads); });   \
    }                                                                                             \
    EXPORT int block_backward_##NAME(const T* x, const float* weight, const T* dy,                \
                                 const uint8_t* winners, T* dx, float* dweight, float* dbias,     \
                                 const Shape* s, int threads) {                                   \
        return answer([&] {                                                                       \
            block_backward(x, weight, dy, winners, Written<T>{dx}, dweight, dbias, Block(*s),     \
                           threads);                                                              \
        });                                                                                       \
    }                                                                                             \
    EXPORT int two_backward_##NAME(const float* films, const T* x, const float* weight,           \
                                    const T* dy, const uint8_t* first_winners,                    \
                                    const uint8_t* winners, float* first_dweight,                 \
                                    float* first_dbias, float* dweight, float* dbias,             \
                                    const Shape* s, int threads, const Shape* first) {            \
        return answer([&] {                                                                       \
            two_backward(films, x, weight, dy, first_winners, winners, first_dweight,             \
                         first_dbias, dweight, dbias, Block(*first), Block(*s), threads);         \
        });                                                                                       \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, bf16)

EXPORT int matrix_tiles() {
#if MATRIX_TILES
    return tiles::allowed();
#else
    return 0;
#endif
}
