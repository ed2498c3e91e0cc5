// The only thread of a simulated run: fibers in the place of threads, and its own clock.
#ifndef GODWIT_TESTS_SIMULATION_SCHEDULER_H_
#define GODWIT_TESTS_SIMULATION_SCHEDULER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/simulation/random.h"

namespace godwit::simulation {

using Duration = std::chrono::nanoseconds;
inline constexpr Duration kNever = Duration::max();
// The clock's time when a run begins: 0 means "not yet" in many a field.
inline constexpr Duration kClockStart = std::chrono::hours(1);
// What a turn takes, less than that: the time that code runs for.
inline constexpr Duration kTurnMax{2000};

// Runs fibers one at a time. Which of those that can go on does so next is the seed's choice, so a
// seed is an interleaving, and the same seed is the same one again. Time passes a little with each
// turn, and jumps when nobody can go on.
//
// Ownership: owns the fibers and their stacks.
// Threads:   one. While Run() runs, Current() is it; the calls marked "fiber" are a fiber's.
// Blocking:  Run() until every fiber of a host that lives has ended.
// Errors:    Run() says who waits for what if nobody ever can go on, or the time limit is over.
class Scheduler {
 public:
  // When something happens next that no fiber waits for by time: a message's arrival. kNever:
  // nothing will. Only times after now() count.
  using NextEvent = std::function<Duration()>;

  Scheduler(uint64_t seed, Duration time_limit, Duration turn_max = kTurnMax);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Null outside of Run(), and between two turns.
  static Scheduler* Current() { return current_; }

  // A fiber of `host`, to be run by Run(). Never 0. From outside, or a fiber.
  uint64_t Spawn(int host, std::string name, std::function<void()> body);
  void SetNextEvent(NextEvent next_event) { next_event_ = std::move(next_event); }

  // Empty when all went well; else what is wrong, for people.
  std::string Run();

  // A fiber's: lets others go on, if chance wants it.
  void MaybeYield();
  // A fiber's: goes on once `ready` says so (true) or `deadline` has passed (false). `what` is for
  // the message of a deadlock. Whether it is ready is asked between turns, any number of times.
  bool Wait(const char* what, std::function<bool()> ready, Duration deadline = kNever);
  // A fiber's: until that one has ended.
  void Join(uint64_t fiber);
  // The host of the fiber that runs.
  int host() const;

  // From now on none of that host's fibers runs again: its processes are dead. What they own is
  // never freed, so the process that simulates should end after the run.
  void Kill(int host);
  bool killed(int host) const;

  Duration now() const { return now_; }
  Random& random() { return random_; }
  uint64_t turns() const { return turns_; }
  // Of which fiber ran when: two runs of a seed are the same if this is.
  uint64_t fingerprint() const { return fingerprint_; }

 private:
  struct Fiber;

  static void Enter(unsigned fiber_high, unsigned fiber_low);
  Fiber* PickReady();
  bool JumpToNextEvent();
  void SwitchTo(Fiber& fiber);
  void SwitchBack(bool for_good);
  bool AllEnded() const;
  std::string Describe(const char* why) const;

  static Scheduler* current_;

  Random random_;
  const Duration time_limit_;
  const Duration turn_max_;
  NextEvent next_event_;
  Duration now_;
  uint64_t turns_ = 0;
  uint64_t fingerprint_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;  // in the order of their numbers, from 1
  std::vector<Fiber*> alive_;                   // those that have not ended
  std::vector<int> killed_hosts_;
  Fiber* running_ = nullptr;
  std::unique_ptr<Fiber> main_;  // what Run() was called on
};

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_SCHEDULER_H_
