#include "team.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace leadline {
namespace {

constexpr int kMaxThreads = 256;
using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds kPatience(20);  // before a thread without work sleeps
constexpr std::chrono::microseconds kStall(300);  // more than this is no item's length but a neighbour's turn
constexpr std::chrono::milliseconds kShortestRest(20), kLongestRest(320);  // of a team that was held up

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Team {
 public:
  void run(int64_t num_items, int num_threads, void (*work)(void*, int64_t), void* context) {
    work_ = work;
    context_ = context;
    num_items_ = num_items;
    next_.store(0);
    int helpers = hire(num_threads - 1);
    places_.store(helpers);
    // From here on helpers come in, until the door is shut; see `help`.
    open_.store(true);
    round_.fetch_add(1);
    if (sleeping_.load() > 0) {
      std::lock_guard<std::mutex> guard(mutex_);
      wake_.notify_all();
    }
    const Clock::time_point started = Clock::now();
    work_on();
    open_.store(false);
    for (int spins = 0; spins < 1000 && inside_.load() > 0; ++spins) pause();
    if (inside_.load() > 0) wait(started);
  }

  // Whether the caller does better alone: a core is taken by somebody else, who holds up all that is shared.
  bool rests() const { return resting_until_ != Clock::time_point() && Clock::now() < resting_until_; }

 private:
  // Until the helpers are done. If that takes twice as long as all of the caller's own work, the system has given
  // a helper's core to somebody else: the team rests, and longer each time that it is held up soon again.
  void wait(Clock::time_point started) {
    const Clock::time_point waiting = Clock::now();
    while (inside_.load() > 0) std::this_thread::yield();
    const Clock::time_point ended = Clock::now();
    if (ended - waiting < kStall || ended - waiting < 2 * (waiting - started)) return;
    const bool is_soon = ended < resting_until_ + 2 * rest_;
    rest_ = !is_soon ? kShortestRest : rest_ < kLongestRest ? 2 * rest_ : kLongestRest;
    resting_until_ = ended + rest_;
  }

  // Starts threads until there are `wanted`, if the system lets us; returns how many there are to use.
  int hire(int wanted) {
    while (num_helpers_ < wanted && num_helpers_ < kMaxThreads) {
      try {
        std::thread(&Team::live, this).detach();
      } catch (const std::system_error&) {
        break;
      }
      ++num_helpers_;
    }
    return wanted < num_helpers_ ? wanted : num_helpers_;
  }

  void work_on() {
    for (int64_t item = next_.fetch_add(1); item < num_items_; item = next_.fetch_add(1)) work_(context_, item);
  }

  // A helper says that it is inside before it looks at the door, and the caller shuts the door before it
  // looks who is inside: so either it sees the door shut, or the caller waits for it.
  void help() {
    inside_.fetch_add(1);
    if (open_.load() && places_.fetch_sub(1) > 0) work_on();
    inside_.fetch_sub(1);
  }

  void live() {
    uint64_t seen = 0;
    for (;;) {
      seen = next_round(seen);
      help();
    }
  }

  uint64_t next_round(uint64_t seen) {
    const auto until = Clock::now() + kPatience;
    do {
      for (int spins = 0; spins < 32; ++spins) {
        if (round_.load() != seen) return round_.load();
        pause();
      }
    } while (Clock::now() < until);
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_.fetch_add(1);
    wake_.wait(lock, [&] { return round_.load() != seen; });
    sleeping_.fetch_sub(1);
    return round_.load();
  }

  void (*work_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t num_items_ = 0;
  int num_helpers_ = 0;
  std::chrono::milliseconds rest_ = kShortestRest;
  Clock::time_point resting_until_;
  std::atomic<int64_t> next_{0};
  std::atomic<int> places_{0}, inside_{0}, sleeping_{0};
  std::atomic<bool> open_{false};
  std::atomic<uint64_t> round_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
};

std::atomic_flag busy = ATOMIC_FLAG_INIT;
Team* team = nullptr;  // never deleted: its threads live as long as the process

// A forked child has the team's memory and none of its threads.
void forget_team() {
  team = nullptr;
  busy.clear();
}

}  // namespace

void share(int64_t num_items, int num_threads, void (*work)(void*, int64_t), void* context) {
  if (num_threads > num_items) num_threads = static_cast<int>(num_items);
  if (num_threads <= 1 || busy.test_and_set()) {
    for (int64_t item = 0; item < num_items; ++item) work(context, item);
    return;
  }
  if (team == nullptr) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_team);
    (void)registered;
    team = new Team;
  }
  if (team->rests()) {
    for (int64_t item = 0; item < num_items; ++item) work(context, item);
  } else {
    team->run(num_items, num_threads, work, context);
  }
  busy.clear();
}

}  // namespace leadline
