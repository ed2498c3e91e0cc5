// How long the end of a session waits for a call of a driver's.
#ifndef GODWIT_ENGINE_BLOCKED_CALL_H_
#define GODWIT_ENGINE_BLOCKED_CALL_H_

#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace godwit {

// The calls to one device, one at a time: none of them can be interrupted, so whoever stops the
// thread that makes them waits for the one that is under way.
//
// Ownership: none.
// Threads:   Enter() and Return() from who calls; StopAsked() from who stops it, before the thread
//            is told; the rest from any.
// Blocking:  never.
// Errors:    none.
class BlockedCall {
 public:
  void Enter() { in_call_.store(true, std::memory_order_relaxed); }
  void Return() {
    in_call_.store(false, std::memory_order_relaxed);
    const int64_t asked_ns = asked_ns_.load(std::memory_order_relaxed);
    if (asked_ns != 0) waited_ns_.store(NowNs() - asked_ns, std::memory_order_relaxed);
  }
  // errno stays as the call left it.
  template <typename Call>
  auto Around(const Call& call) {
    Enter();
    auto result = call();
    Return();
    return result;
  }

  // The first time counts.
  void StopAsked() {
    int64_t never = 0;
    asked_ns_.compare_exchange_strong(never, NowNs(), std::memory_order_relaxed);
  }
  bool in_call() const { return in_call_.load(std::memory_order_relaxed); }
  // Since StopAsked(), if a call is under way; else 0.
  Clock::Duration so_far() const {
    const int64_t asked_ns = asked_ns_.load(std::memory_order_relaxed);
    if (asked_ns == 0 || !in_call()) return {};
    return Clock::Duration(NowNs() - asked_ns);
  }
  // From StopAsked() to the return of the last call that it met or that came after it; 0: none did.
  // Final when the thread has ended.
  Clock::Duration waited() const {
    return Clock::Duration(waited_ns_.load(std::memory_order_relaxed));
  }

 private:
  static int64_t NowNs() { return Clock::Steady().Now().count(); }

  // All relaxed: they are statistics, and joining the thread orders what is final.
  std::atomic<bool> in_call_{false};
  std::atomic<int64_t> asked_ns_{0};  // 0: not asked
  std::atomic<int64_t> waited_ns_{0};
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_BLOCKED_CALL_H_
