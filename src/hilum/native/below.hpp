// What becomes of the gradient of a block's input, two lines at a time: it is written, or the first
// block takes it at once, which has nothing below it. Then the largest gradient is never in memory.
//
// A strip asks where `lines` belong, puts them there, and says when they are `whole`; two more may
// be on their way by then. `Sums` is how the first block adds up.
#pragma once

#include "first.hpp"

namespace hilum {

template <class T>
struct Written {  // to memory
    template <class>
    class Strip {
    public:
        Strip(const Written& to, const Block& s) : to(to), s(s) {}
        void begin(int film) { this->film = film; }
        T* lines(int first) const { return to.dx + s.input(film, first, 0); }  // it and the next
        void whole(int, int) const {}  // so many from the first on
        void end(int) const {}

    private:
        const Written& to;
        const Block& s;
        int film;
    };

    T* const dx;  // may be null: not wanted
    bool wanted() const { return dx; }
};

template <class T>
struct Taken {  // by the first block
    template <class Sums>
    class Strip {
    public:
        Strip(const Taken& by, const Block& s)
            : by(by), length((size_t)s.width * s.in), ring(4 * length), sums(by.first) {}
        void begin(int film) {
            this->film = film;
            sums.begin(by.films + by.first.input(film, 0, 0));
        }
        T* lines(int first) const { return ring + first % 4 * length; }
        void whole(int first, int count) {
            for (int i = 0; i < count; i++)
                sums.add(first + i, lines(first) + i * length,
                         by.winners + by.first.pixel(film, first + i, 0));
        }
        void end(int piece) const { sums.end(by.shares + by.share * piece); }

    private:
        const Taken& by;
        const size_t length;
        const Buffer<T> ring;
        FirstStrip<T, Sums> sums;
        int film;
    };

    Taken(const float* films, const uint8_t* winners, const Block& first, int pieces)
        : films(films), winners(winners), first(first), shares(share * pieces) {}
    bool wanted() const { return true; }

    const float* const films;
    const uint8_t* const winners;  // of the first block
    const Block& first;
    const size_t share = (size_t)(TAPS + 1) * first.out;
    const Buffer<float> shares;  // [pieces][TAPS + 1][out]
};

}  // namespace hilum
