#include "engine/step_threads.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/thread_name.h"

namespace godwit {
namespace {

constexpr std::chrono::milliseconds kMeanwhileInterval{5};
constexpr int kEmptySteps = 4;

}  // namespace

void StepThreads::Stop() {
  {
    MutexLock lock(mutex_);
    GODWIT_CHECK(under_way_ == 0);
    stop_ = true;
    begun_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  MutexLock lock(mutex_);
  stop_ = false;
  round_ = 0;
}

void StepThreads::Start() {
  threads_.reserve(devices_);
  while (threads_.size() < devices_) {
    threads_.emplace_back([this, device = threads_.size()] { Run(device); });
  }
}

void StepThreads::Run(size_t device) {
  NameThisThread("godwit-device");
  for (uint64_t done = 0;; ++done) {
    const std::function<absl::Status(size_t)>* step = nullptr;
    {
      MutexLock lock(mutex_);
      while (round_ == done && !stop_) begun_.Wait(mutex_);
      if (stop_) return;
      step = step_;
    }
    absl::Status result = (*step)(device);
    MutexLock lock(mutex_);
    results_[device] = std::move(result);
    if (--under_way_ == 0) ended_.NotifyOne();
  }
}

absl::Status StepThreads::ForEach(const std::function<absl::Status(size_t)>& step,
                                  const std::function<void()>& meanwhile) {
  Start();
  {
    MutexLock lock(mutex_);
    GODWIT_CHECK(under_way_ == 0);
    results_.assign(devices_, absl::OkStatus());
    step_ = &step;
    under_way_ = devices_;
    ++round_;
    begun_.NotifyAll();
  }
  while (true) {
    {
      const auto next = std::chrono::steady_clock::now() + kMeanwhileInterval;
      MutexLock lock(mutex_);
      while (under_way_ > 0 && ended_.WaitUntil(mutex_, next)) {
      }
      if (under_way_ == 0) break;
    }
    meanwhile();
  }
  MutexLock lock(mutex_);
  step_ = nullptr;
  for (const absl::Status& result : results_) {
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

Clock::Duration StepThreads::Overhead() {
  Clock::Duration shortest = Clock::Duration::max();
  for (int i = 0; i < kEmptySteps; ++i) {
    const Clock::Duration before = Clock::Steady().Now();
    (void)ForEach([](size_t) { return absl::OkStatus(); }, [] {});
    shortest = std::min(shortest, Clock::Steady().Now() - before);
  }
  return shortest;
}

}  // namespace godwit
