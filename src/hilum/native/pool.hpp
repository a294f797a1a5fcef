// A pool of threads that suits a machine which is shared.
//
// Work comes in numbered pieces; whoever is free takes the next. The caller works too, and at the
// end waits for pieces that somebody has begun, never for a thread: OpenMP's barriers do, and
// beside busy processes each then costs the time slice that a thread waits to be scheduled, only
// to learn that nothing is left to do. Idle threads sleep.
//
// Where a piece finds no memory the rest of its job is skipped, and the caller gets the exception:
// out of a thread of the pool it would end the process.
#pragma once

#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

namespace hilum {

class Turn;
using Body = std::function<void(Turn&)>;

struct Job {
    Body body;
    int pieces, helpers;
    std::atomic<int> next{0}, left;
    std::atomic<bool> memory_full{false};
    std::mutex mutex;
    std::condition_variable finished;

    Job(Body body, int pieces, int helpers)
        : body(std::move(body)), pieces(pieces), helpers(helpers), left(pieces) {}

    void wait() {
        for (int i = 0; i < 1000 && left.load(std::memory_order_acquire); i++) _mm_pause();
        std::unique_lock<std::mutex> lock(mutex);
        finished.wait(lock, [this] { return left.load(std::memory_order_acquire) == 0; });
    }
};

// What a body holds: a piece, and the right to the next. While it holds one the caller waits, so
// what the body refers to is alive.
class Turn {
 public:
    int piece;

    bool next() {
        finish();
        return take();
    }

 private:
    friend class Pool;
    explicit Turn(Job& job) : job(job) {}

    bool take() {
        piece = job.next.fetch_add(1, std::memory_order_relaxed);
        return piece < job.pieces;
    }
    void finish() {
        if (job.left.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
        std::lock_guard<std::mutex> lock(job.mutex);
        job.finished.notify_all();
    }
    Job& job;
};

class Pool {
 public:
    // Runs `body` on up to `threads` threads, this one among them, until all pieces are done. Each
    // body goes on while `turn.next()`, and needs no more memory once that is false. Throws
    // `std::bad_alloc` where a body does.
    static void run(int pieces, int threads, Body body) {
        if (pieces < 1) return;
        const auto job =
            std::make_shared<Job>(std::move(body), pieces, std::min(threads, pieces) - 1);
        if (job->helpers > 0) here().invite(job);
        work(*job);
        job->wait();
        if (job->memory_full) throw std::bad_alloc();
    }

 private:
    static void work(Job& job) {
        Turn turn(job);
        if (!turn.take()) return;
        try {
            job.body(turn);
        } catch (const std::bad_alloc&) {
            job.memory_full = true;
            while (turn.next()) {  // nobody waits for what will not be done
            }
        }
    }

    // The pool of this process: threads do not survive a fork. Never destroyed: they sleep in it.
    static Pool& here() {
        static std::atomic<Pool*> pool{nullptr};
        static std::mutex making;
        Pool* found = pool.load(std::memory_order_acquire);
        if (found && found->process == getpid()) return *found;
        std::lock_guard<std::mutex> lock(making);
        found = pool.load(std::memory_order_acquire);
        if (!found || found->process != getpid())
            pool.store(found = new Pool, std::memory_order_release);
        return *found;
    }

    void invite(const std::shared_ptr<Job>& job) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            try {
                for (; members < job->helpers; members++)
                    std::thread(&Pool::live, this, members).detach();
            } catch (const std::exception&) {  // no room for its stack: fewer do the same work
            }
            current = job;
            number++;
        }
        wake.notify_all();
    }

    void live(int index) {
        for (unsigned long seen = 0;;) {
            std::shared_ptr<Job> job;
            {
                std::unique_lock<std::mutex> lock(mutex);
                wake.wait(lock, [&] { return number != seen; });
                seen = number;
                job = current;
            }
            if (index < job->helpers) work(*job);
        }
    }

    const pid_t process = getpid();
    std::mutex mutex;
    std::condition_variable wake;
    std::shared_ptr<Job> current;
    unsigned long number = 0;
    int members = 0;
};

}  // namespace hilum
