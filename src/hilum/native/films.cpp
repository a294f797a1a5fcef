// What is done to films: their augmentation, and their resizing before.
#include "augment.hpp"
#include "resize.hpp"

using namespace hilum;

EXPORT int augment_float32(const uint8_t* films, const float* affine, const float* sharpness,
                       const float* gamma, const float* contrast, const float* field,
                       const float* noise, const float* cutout, const float* row, float* y,
                       const Shape* s, int threads) {
    return answer([&] {
        augment(films, {affine, sharpness, gamma, contrast, field, noise, row, cutout}, y, s->films,
                s->width, threads);
    });
}

EXPORT int resize_uint8(const uint8_t* film, uint8_t* out, int height, int width, int size) {
    return answer([&] { resize(film, out, height, width, size); });
}
