// Follows one device through PRE_COPY: asks it what is left, and has its stream read again.
#ifndef GODWIT_ENGINE_PRECOPY_WATCH_H_
#define GODWIT_ENGINE_PRECOPY_WATCH_H_

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/notifier.h"
#include "engine/blocked_call.h"
#include "engine/source_worker.h"
#include "godwit/device.h"
#include "godwit/session.h"
#include "godwit/unique_fd.h"

namespace godwit {

// What a device in PRE_COPY said when it was asked last, and where its stream stood then.
struct PrecopyEstimate {
  uint64_t asked = 0;  // times
  uint64_t initial_bytes = 0;
  uint64_t dirty_bytes = 0;
  // What STOP_COPY would bring, as the device says (MIG_DATA_SIZE); nothing where it doesn't say.
  std::optional<uint64_t> stop_copy_bytes;
  uint64_t read_bytes_before = 0;  // of its stream when it was asked
  Clock::Duration asked_at{0};
  double dirty_bytes_per_second = 0;  // between the last two times that there was more; 0: unknown
  Clock::Duration more_at{0};         // when there was more the last time
  // The stream was dry and so is the device: it has nothing more to give before it stops.
  bool exhausted = false;
  // The initial bytes are all among the stream's first `initial_packets`.
  bool initial_read = false;
  uint32_t initial_packets = 0;
};

// Takes what a device answered at `now`, when `read_bytes` of its stream had been read, but for
// stop_copy_bytes. There is more when its dirty bytes are more than what was left of the last
// answer: mlx5 says what is unread of one chunk until that has been read, and only then what has
// become dirty since it made the chunk.
void TakeAnswer(const PrecopyInfo& info, uint64_t read_bytes, Clock::Duration now,
                PrecopyEstimate& estimate);

// What is left to move if the device were stopped at `now`, of which `read_bytes` have been read
// since the session began: what the device announced and what has become dirty since there was
// more, or what it said that STOP_COPY would bring and what has become dirty since it was asked,
// where that is more; less what has been read since; which is at most all of its state,
// `state_bytes`, where that is known (not 0).
uint64_t RemainingBytes(const PrecopyEstimate& estimate, uint64_t read_bytes, uint64_t state_bytes,
                        Clock::Duration now);

// A thread that asks (GET_PRECOPY_INFO, MIG_DATA_SIZE) each time that the stream has run dry, which
// on mlx5 and virtio is also what makes the next dirty data, and then has the stream read again. A
// device that has nothing is asked again when its fd polls readable, or after a while where it
// can't be polled.
//
// Ownership: owns the thread and the data_fd until the worker has it; borrows the rest.
// Threads:   Start(), Stop() from one thread; the rest from any. Between them nobody else calls the
//            device's methods.
// Blocking:  Stop() waits for a call of the driver's that is under way.
// Errors:    the first is final, comes from status(), and is told to `events`.
class PrecopyWatch {
 public:
  // `device` is `index` in the worker. The device is asked again no sooner than `interval` after
  // the last time.
  static absl::StatusOr<std::unique_ptr<PrecopyWatch>> Make(Device& device, size_t index,
                                                            UniqueFd data_fd, SourceWorker& worker,
                                                            std::chrono::milliseconds interval,
                                                            const Notifier& events);
  ~PrecopyWatch();
  PrecopyWatch(const PrecopyWatch&) = delete;
  PrecopyWatch& operator=(const PrecopyWatch&) = delete;

  void Start();
  void Stop();

  // What Stop() has to wait for.
  const BlockedCall& blocked_call() const { return blocked_call_; }
  absl::Status status() const;
  PrecopyEstimate estimate() const;
  // The iterations since the last call of this function, at most kIterationsMax of them.
  std::vector<PrecopyIteration> TakeIterations();

  static constexpr size_t kIterationsMax = 256;

 private:
  PrecopyWatch(Device& device, size_t index, UniqueFd data_fd, UniqueFd duplicate,
               SourceWorker& worker, std::chrono::milliseconds interval, Notifier wake,
               const Notifier& events);
  void Run();
  absl::Status Watch();
  absl::Status Ask(bool dry);
  bool WaitUntilDry(uint64_t times_dry);
  enum class Woken { kInTime, kByStream, kStopped };
  Woken Sleep(Clock::Duration until, bool for_stream);

  Device& device_;
  const size_t index_;
  SourceWorker& worker_;
  const std::chrono::milliseconds interval_;
  const bool pollable_;
  UniqueFd fd_;  // our own, since a worker that fails closes its
  const Notifier wake_;
  const Notifier& events_;

  // The thread's.
  UniqueFd data_fd_;
  Clock::Duration asked_at_{0};
  Clock::Duration dry_at_{0};
  Clock::Duration iteration_began_{0};
  uint64_t iteration_read_bytes_ = 0;

  std::atomic<bool> stop_{false};  // relaxed: the notifier orders it
  BlockedCall blocked_call_;
  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  PrecopyEstimate estimate_ ABSL_GUARDED_BY(mutex_);
  std::vector<PrecopyIteration> iterations_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_PRECOPY_WATCH_H_
