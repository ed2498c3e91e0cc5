// State changes of several devices at once.
#ifndef GODWIT_ENGINE_DEVICE_STEPS_H_
#define GODWIT_ENGINE_DEVICE_STEPS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <absl/base/thread_annotations.h>

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "engine/step_threads.h"
#include "godwit/device.h"
#include "godwit/session.h"

namespace godwit {

// What state changes took, for the session's observer.
//
// Threads: any. Blocking: never for long. Errors: none.
class StepLog {
 public:
  void Add(DeviceStep step);
  std::vector<DeviceStep> Take();

 private:
  Mutex mutex_;
  std::vector<DeviceStep> steps_ ABSL_GUARDED_BY(mutex_);
};
Clock::Duration Slowest(const std::vector<DeviceStep>& steps);

// Takes a device to `wanted`, which opens its stream. FailedPrecondition: it opened none.
// `position` is the device's, for `log`, where it isn't null.
absl::StatusOr<UniqueFd> OpenStream(Device& device, size_t position, DeviceState wanted,
                                    StepLog* log);
// The same where no stream has to be opened.
absl::StatusOr<UniqueFd> SetStateOf(Device& device, size_t position, DeviceState wanted,
                                    StepLog* log);

// From here on REQUIRES: as many threads as devices.

// Takes every device to `wanted`; its messages name device and states. Streams that the arcs open
// go to `streams` (one a device) where it isn't null, else are closed.
absl::Status SetStates(StepThreads& threads, const std::vector<Device*>& devices,
                       DeviceState wanted, std::vector<UniqueFd>* streams,
                       const std::function<void()>& meanwhile, StepLog* log = nullptr);

// To RUNNING, by way of RUNNING_P2P where there are several: none may write to another that still
// stands.
absl::Status RunAll(StepThreads& threads, const std::vector<Device*>& devices,
                    const std::function<void()>& meanwhile, StepLog* log = nullptr);

// The quiescent state that a device goes to from where it runs: PRE_COPY_P2P or RUNNING_P2P.
absl::Status Quiesce(StepThreads& threads, const std::vector<Device*>& devices,
                     const std::function<void()>& meanwhile, StepLog* log = nullptr);

// A device's configuration, at most kConfigBytesMax of it. REQUIRES: STOP or STOP_COPY
absl::StatusOr<std::string> SaveConfigOf(Device& device);
absl::Status SaveConfigs(StepThreads& threads, const std::vector<Device*>& devices,
                         std::vector<std::string>& configs, const std::function<void()>& meanwhile);

// Before what was read of them counts: DataLoss where one is not in STOP_COPY any more. A device
// that was reset behind our back runs, and what was read is not its state.
absl::Status CheckStillStopped(StepThreads& threads, const std::vector<Device*>& devices,
                               const std::function<void()>& meanwhile);
// The same, and each that still is goes to STOP.
absl::Status StopForGood(StepThreads& threads, const std::vector<Device*>& devices,
                         const std::function<void()>& meanwhile, StepLog* log = nullptr);

// After a failure: every device to RUNNING, and where one refuses, by a reset, of which the
// observer is told and which its report (one a device) says. DataLoss: all run, but that lost a
// device's state.
absl::Status PutBackToRunning(StepThreads& threads, const std::vector<Device*>& devices,
                              SessionObserver& observer, std::vector<DeviceReport>& reports,
                              const std::function<void()>& meanwhile);
// After a failed load: every device is reset.
absl::Status ResetAll(StepThreads& threads, const std::vector<Device*>& devices,
                      const std::function<void()>& meanwhile);

// InvalidArgument when devices that move together don't all have P2P: without it one could write
// into another that has stopped already.
absl::Status CheckMoveTogether(const std::vector<Device*>& devices);

}  // namespace godwit

#endif  // GODWIT_ENGINE_DEVICE_STEPS_H_
