// A residual block (He 2016) in one call each way; torch would go from operator to operator, and
// with maps of a few films each costs it as much to begin as to compute.
//
//     p = x, or its mean over 2x2 places          s = p, or norm(convolution 1x1 of p)
//     m = relu(norm(convolution 3x3 of p))        y = relu(norm(convolution 3x3 of m) + s)
#pragma once

#include "branch.hpp"
#include "framed.hpp"
#include "pointwise.hpp"

namespace hilum {

struct Residual : Shape {  // of x; a stem is one that is halved
    int halved, turned, trains;  // mean before it, convolution around it, statistics of the batch
    Shape inner(int from) const {  // of what the convolutions see
        const int by = halved ? 2 : 1;
        return {films, (height + by - 1) / by, (width + by - 1) / by, from, out};
    }
    size_t values(int channels) const {
        const Shape s = inner(channels);
        return (size_t)s.films * s.height * s.width * channels;
    }
};

template <class T>
struct Kept {  // for the way back, in memory that the caller has
    Kept(const Residual& s, const T* x, T* memory)
        : input(s.halved ? memory : x),
          first(memory + (s.halved ? s.values(s.in) : 0)),
          middle(first + s.values(s.out)),
          second(middle + s.values(s.out)),
          around(second + s.values(s.out)) {}
    const T* input;
    T *first, *middle, *second, *around;
};

// Branches: the first convolution, the second, the one around both.
template <class T>
void residual_forward(const T* x, const Branch* branches, T* memory, T* y, const Residual& s,
                      int threads) {
    const Kept<T> kept(s, x, memory);
    const Rows rows(s.inner(s.out));
    if (s.halved) mean_forward(x, memory, s, threads);
    framed_forward(kept.input, branches[0].weight, kept.first, Framed(s.inner(s.in)), threads);
    branch_forward(kept.first, (const T*)nullptr, true, branches[0], kept.middle, rows, s.trains,
                   threads);
    framed_forward(kept.middle, branches[1].weight, kept.second, Framed(s.inner(s.out)), threads);
    if (!s.turned)
        return branch_forward(kept.second, kept.input, true, branches[1], y, rows, s.trains,
                              threads);
    pointwise_forward(kept.input, branches[2].weight, kept.around, s.inner(s.in), threads);
    Buffer<T> beside(s.values(s.out));
    branch_forward(kept.around, (const T*)nullptr, false, branches[2], (T*)beside, rows, s.trains,
                   threads);
    branch_forward(kept.second, (const T*)beside, true, branches[1], y, rows, s.trains, threads);
}

// dy to dx, unless that is null, and to the branches' gradients.
template <class T>
void residual_backward(const T* x, const T* memory, const T* y, const T* dy,
                       const Branch* branches, T* dx, const Residual& s, int threads) {
    const Kept<T> kept(s, x, (T*)memory);
    const Rows rows(s.inner(s.out));
    const size_t inside = s.values(s.in), outside = s.values(s.out);
    Buffer<T> beside(outside), gradient(outside), middle(outside);
    Buffer<T> pooled(s.halved && dx ? inside : 0);
    T* input = s.halved && dx ? (T*)pooled : dx;  // the gradient of p
    branch_backward(kept.second, y, dy, branches[1], (T*)gradient, (T*)beside, rows, threads);
    framed_backward(kept.middle, branches[1].weight, (T*)gradient, (T*)middle, branches[1].dweight,
                    Framed(s.inner(s.out)), threads);
    branch_backward(kept.first, kept.middle, (T*)middle, branches[0], (T*)gradient, (T*)nullptr,
                    rows, threads);
    framed_backward(kept.input, branches[0].weight, (T*)gradient, input, branches[0].dweight,
                    Framed(s.inner(s.in)), threads);
    if (s.turned) {
        branch_backward(kept.around, (const T*)nullptr, (T*)beside, branches[2], (T*)gradient,
                        (T*)nullptr, rows, threads);
        pointwise_backward(kept.input, branches[2].weight, (T*)gradient, input,
                           branches[2].dweight, s.inner(s.in), threads);
    } else if (input) {
        for (size_t i = 0; i < inside; i += LANES)
            store(input + i, load(input + i) + load(beside + i));
    }
    if (s.halved && dx) mean_backward((T*)pooled, dx, s, threads);
}

}  // namespace hilum
