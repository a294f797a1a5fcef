// Muon's update.
#include "muon.hpp"

using namespace hilum;

// `weights` come the largest first, so that the last threads to end have little left.
EXPORT int muon_step_float32(const Weights* weights, int count, const Momentum* momentum,
                             int threads) {
    return answer([&] {
        Pool::run(count, threads, [=](Turn& turn) {
            do step(weights[turn.piece], *momentum);
            while (turn.next());
        });
    });
}
