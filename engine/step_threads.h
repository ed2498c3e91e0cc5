// Threads that change the states of several devices at once.
#ifndef GODWIT_ENGINE_STEP_THREADS_H_
#define GODWIT_ENGINE_STEP_THREADS_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"

namespace godwit {

// One thread a device, all asleep between two steps: N slow devices cost the slowest and not the
// sum. They are there before the devices stop, since on a busy host a new thread waits for its
// first turn for as long as a whole switchover takes.
//
// Ownership: owns the threads.
// Threads:   one thread, which calls everything.
// Blocking:  ForEach() until every device's step has ended.
// Errors:    the first step's, in the order of devices.
class StepThreads {
 public:
  explicit StepThreads(size_t devices) : devices_(devices) {}
  ~StepThreads() { Stop(); }
  StepThreads(const StepThreads&) = delete;
  StepThreads& operator=(const StepThreads&) = delete;

  size_t devices() const { return devices_; }
  // Else the first ForEach() does it.
  void Start();
  // Until the next Start().
  void Stop();

  // Runs `step(i)` for every device, and calls `meanwhile` every 5 ms until all have ended (so that
  // the control channel stays alive behind a slow one). REQUIRES: not from a step, nor from
  // `meanwhile`
  absl::Status ForEach(const std::function<absl::Status(size_t)>& step,
                       const std::function<void()>& meanwhile);

  // What that itself costs: the shortest of a few steps that do nothing.
  Clock::Duration Overhead();

 private:
  void Run(size_t device);

  const size_t devices_;
  std::vector<std::thread> threads_;

  Mutex mutex_;
  CondVar begun_;
  CondVar ended_;
  uint64_t round_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  size_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  const std::function<absl::Status(size_t)>* step_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::vector<absl::Status> results_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_STEP_THREADS_H_
