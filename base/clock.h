// A clock that tests can replace.
#ifndef GODWIT_BASE_CLOCK_H_
#define GODWIT_BASE_CLOCK_H_

#include <chrono>

namespace godwit {

// Monotonic time since an arbitrary start.
//
// Ownership: callers keep a reference; the clock outlives them.
// Threads:   safe from any thread.
// Blocking:  never.
// Errors:    none.
class Clock {
 public:
  using Duration = std::chrono::nanoseconds;
  virtual ~Clock() = default;
  virtual Duration Now() const = 0;

  // CLOCK_MONOTONIC; lives for ever.
  static const Clock& Steady();
};

// Stands still until it is told to move. For tests; not synchronised.
class ManualClock final : public Clock {
 public:
  Duration Now() const override { return now_; }
  void Advance(Duration by) { now_ += by; }

 private:
  Duration now_{0};
};

inline const Clock& Clock::Steady() {
  class SteadyClock final : public Clock {
   public:
    Duration Now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
  };
  static const SteadyClock clock;
  return clock;
}

}  // namespace godwit

#endif  // GODWIT_BASE_CLOCK_H_
