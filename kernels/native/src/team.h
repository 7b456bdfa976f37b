// A small team of threads that share the work items of one call.
#pragma once

#include <cstdint>

namespace leadline {

// Calls `work(context, item)` once for each item in [0, num_items), on at most `num_threads` threads, the
// caller being one of them; returns when all are done. Items are handed out one by one, so that a thread
// which is held up by something else holds up no more than its own item; where that takes much longer than all
// that the caller did, its core is somebody else's as well, and calls run on their caller alone for some time.
// A thread that has had nothing to do for some microseconds sleeps. A call from within a call, or beside
// another one, runs on its caller alone.
void share(int64_t num_items, int num_threads, void (*work)(void* context, int64_t item), void* context);

// The same for a callable.
template <class Work>
void share(int64_t num_items, int num_threads, Work work) {
  share(
      num_items, num_threads, [](void* context, int64_t item) { (*static_cast<Work*>(context))(item); }, &work);
}

}  // namespace leadline
