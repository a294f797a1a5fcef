// Muon's update of convolutions (Jordan 2024): Nesterov's momentum, made orthogonal by a quintic
// Newton-Schulz iteration, x <- a x + (b g + c g g) x with g = x x', and decoupled weight decay.
//
// Each x on the way is p x0, p being a polynomial of g0 = x0 x0': so only matrices of the smaller side
// are multiplied, and x0 once at the end. That is for few iterations: g's own rounding may grow by
// a * a in each.
#pragma once

#include <cmath>

#include "products.hpp"

namespace hilum {

struct Momentum {  // what all weights share
    float momentum, lr, decay;
    int iterations;
};

// Weights as a matrix, with their gradients and the running mean of these.
struct Weights {
    float* values;
    const float* gradients;
    float* means;
    int rows, columns;
};

constexpr int AT_A_TIME = AVX512 ? 8 : 4;  // rows multiplied: so many that no sum waits for itself

inline int padded(int size, int multiple) { return (size + multiple - 1) / multiple * multiple; }

// Room for a matrix x and what is made of it.
class Orthogonal {
public:
    Orthogonal(int shorter, int longest)
        : size(padded(shorter, LINE)),
          longer(padded(longest, AT_A_TIME)),
          x((size_t)longer * size),
          made((size_t)longer * size),
          gram(square()), twice(square()), change(square()), all(square()), next(square()) {}

    // x[longer][size], noughts beyond its sides, to made[longer][size], which is orthogonal.
    void make(int iterations) const {
        constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
        double sum = 0;
        for (size_t i = 0; i < (size_t)longer * size; i++) sum += (double)x[i] * x[i];
        const float share = 1 / ((float)std::sqrt(sum) + 1e-7f);
        for (size_t i = 0; i < (size_t)longer * size; i++) x[i] *= share;
        multiply<true>(x, x, gram, size, longer);
        for (int turn = 0; turn < iterations; turn++) {
            multiply(gram, gram, twice, size, size);
            for (int i = 0; i < size * size; i++) change[i] = b * gram[i] + c * twice[i];
            for (int i = 0; i < size; i++) change[i * size + i] += a;
            if (turn == 0) {
                std::copy_n((float*)change, size * size, (float*)all);
            } else {
                multiply(change, all, next, size, size);
                std::copy_n((float*)next, size * size, (float*)all);
            }
            if (turn + 1 == iterations) break;
            multiply(change, gram, twice, size, size);
            multiply(twice, change, gram, size, size);
        }
        multiply(x, all, made, longer, size);
    }

    const int size, longer;
    const Buffer<float> x, made;

private:
    // c[rows][size] = a[rows][depth] . b[depth][size]; TURNED: a[depth][rows].
    template <bool TURNED = false>
    void multiply(const float* a, const float* b, float* c, int rows, int depth) const {
        for (int row = 0; row < rows; row += AT_A_TIME)
            product<WIDTH, TURNED, AT_A_TIME>(a + (TURNED ? row : (size_t)row * depth),
                                              TURNED ? rows : depth, b, size, LINE,
                                              c + (size_t)row * size, size, depth, false);
    }
    Buffer<float> square() const { return Buffer<float>((size_t)size * size); }
    const Buffer<float> gram, twice, change, all, next;
};

inline void step(const Weights& w, const Momentum& m) {
    const bool turned = w.rows > w.columns;  // then a line of the matrix is one of x
    const Orthogonal o(std::min(w.rows, w.columns), std::max(w.rows, w.columns));
    std::fill_n((float*)o.x, (size_t)o.longer * o.size, 0.f);
    const auto place = [&](int row, int column) {
        return turned ? (size_t)row * o.size + column : (size_t)column * o.size + row;
    };
    for (int i = 0; i < w.rows; i++)
        for (int j = 0; j < w.columns; j++) {
            const size_t at = (size_t)i * w.columns + j;
            const float gradient = w.gradients[at];
            const float mean = w.means[at] += (1 - m.momentum) * (gradient - w.means[at]);
            o.x[place(i, j)] = gradient + m.momentum * (mean - gradient);
        }
    o.make(m.iterations);
    const float keep = 1 - m.lr * m.decay;
    const float share = m.lr * std::sqrt(std::max(1.f, (float)w.rows / w.columns));
    for (int i = 0; i < w.rows; i++)
        for (int j = 0; j < w.columns; j++) {
            float& value = w.values[(size_t)i * w.columns + j];
            value = value * keep - share * o.made[place(i, j)];
        }
}

}  // namespace hilum
