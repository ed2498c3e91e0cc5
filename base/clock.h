// A clock that tests can replace.
#ifndef GODWIT_BASE_CLOCK_H_
#define GODWIT_BASE_CLOCK_H_

#include <chrono>

namespace godwit {

class SteadyClock;

// Monotonic time since an arbitrary start.
//
// Ownership: callers keep a reference; the clock outlives them.
// Threads:   safe from any thread.
// Blocking:  never.
// Errors:    none.
class Clock {
 public:
  using Duration = std::chrono::nanoseconds;
  virtual Duration Now() const = 0;

  // CLOCK_MONOTONIC; lives for ever.
  static const SteadyClock& Steady();

 protected:
  ~Clock() = default;
};

class SteadyClock final : public Clock {
 public:
  Duration Now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
};

// Read for each packet: no guard, no virtual call.
inline const SteadyClock& Clock::Steady() {
  static constexpr SteadyClock clock;
  return clock;
}

// Stands still until it is told to move. For tests; not synchronised.
class ManualClock final : public Clock {
 public:
  Duration Now() const override { return now_; }
  void Advance(Duration by) { now_ += by; }

 private:
  Duration now_{0};
};

}  // namespace godwit

#endif  // GODWIT_BASE_CLOCK_H_
