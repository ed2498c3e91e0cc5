#include "engine/device_steps.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/errno_status.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "engine/packet.h"

namespace godwit {
namespace {

// How often and how long apart a device that would not go back to RUNNING is asked again.
constexpr int kRunningRetries = 3;
constexpr std::chrono::milliseconds kRunningRetryInterval{20};

absl::Status CheckInStopCopy(Device& device) {
  const std::string where = absl::StrCat("device ", device.name());
  const absl::StatusOr<DeviceState> state = device.State();
  if (!state.ok()) return Annotate(state.status(), where);
  if (*state == DeviceState::kStopCopy) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(where, ": it is in ", DeviceStateName(*state),
                                          ", though nobody took it out of STOP_COPY"));
}

}  // namespace

void StepLog::Add(DeviceStep step) {
  MutexLock lock(mutex_);
  steps_.push_back(std::move(step));
}

std::vector<DeviceStep> StepLog::Take() {
  MutexLock lock(mutex_);
  return std::exchange(steps_, {});
}

Clock::Duration Slowest(const std::vector<DeviceStep>& steps) {
  Clock::Duration slowest{0};
  for (const DeviceStep& step : steps) slowest = std::max(slowest, step.duration);
  return slowest;
}

absl::StatusOr<UniqueFd> SetStateOf(Device& device, size_t position, DeviceState wanted,
                                    StepLog* log) {
  DeviceStep step;
  step.device = position;
  step.to = wanted;
  step.begin = Clock::Steady().Now();
  absl::StatusOr<UniqueFd> stream = device.SetState(wanted);
  step.duration = Clock::Steady().Now() - step.begin;
  step.status = stream.status();
  if (log != nullptr) log->Add(std::move(step));
  if (stream.ok()) return stream;
  return Annotate(stream.status(),
                  absl::StrCat("device ", device.name(), ": to ", DeviceStateName(wanted)));
}

absl::StatusOr<UniqueFd> OpenStream(Device& device, size_t position, DeviceState wanted,
                                    StepLog* log) {
  GODWIT_ASSIGN_OR_RETURN(UniqueFd stream, SetStateOf(device, position, wanted, log));
  if (stream.valid()) return stream;
  return absl::FailedPreconditionError(absl::StrCat("device ", device.name(), ": to ",
                                                    DeviceStateName(wanted),
                                                    ": it opened no stream for its state"));
}

absl::Status SetStates(StepThreads& threads, const std::vector<Device*>& devices,
                       DeviceState wanted, std::vector<UniqueFd>* streams,
                       const std::function<void()>& meanwhile, StepLog* log) {
  if (streams != nullptr) streams->resize(devices.size());
  return threads.ForEach(
      [&](size_t i) -> absl::Status {
        if (streams == nullptr) return SetStateOf(*devices[i], i, wanted, log).status();
        GODWIT_ASSIGN_OR_RETURN((*streams)[i], OpenStream(*devices[i], i, wanted, log));
        return absl::OkStatus();
      },
      meanwhile);
}

absl::Status Quiesce(StepThreads& threads, const std::vector<Device*>& devices,
                     const std::function<void()>& meanwhile, StepLog* log) {
  return threads.ForEach(
      [&](size_t i) -> absl::Status {
        GODWIT_ASSIGN_OR_RETURN(const DeviceState state, devices[i]->State());
        const DeviceState wanted =
            state == DeviceState::kPreCopy ? DeviceState::kPreCopyP2p : DeviceState::kRunningP2p;
        return SetStateOf(*devices[i], i, wanted, log).status();
      },
      meanwhile);
}

absl::Status RunAll(StepThreads& threads, const std::vector<Device*>& devices,
                    const std::function<void()>& meanwhile, StepLog* log) {
  if (devices.size() > 1) {
    GODWIT_RETURN_IF_ERROR(
        SetStates(threads, devices, DeviceState::kRunningP2p, nullptr, meanwhile, log));
  }
  return SetStates(threads, devices, DeviceState::kRunning, nullptr, meanwhile, log);
}

absl::StatusOr<std::string> SaveConfigOf(Device& device) {
  const std::string where = absl::StrCat("device ", device.name(), ": saving its configuration");
  absl::StatusOr<std::string> config = device.SaveConfig();
  if (!config.ok()) return Annotate(config.status(), where);
  if (config->size() <= kConfigBytesMax) return config;
  return absl::InvalidArgumentError(absl::StrCat(
      where, ": it has ", config->size(), " bytes, at most ", kConfigBytesMax, " can be moved"));
}

absl::Status SaveConfigs(StepThreads& threads, const std::vector<Device*>& devices,
                         std::vector<std::string>& configs,
                         const std::function<void()>& meanwhile) {
  configs.resize(devices.size());
  return threads.ForEach(
      [&](size_t i) -> absl::Status {
        GODWIT_ASSIGN_OR_RETURN(configs[i], SaveConfigOf(*devices[i]));
        return absl::OkStatus();
      },
      meanwhile);
}

absl::Status CheckStillStopped(StepThreads& threads, const std::vector<Device*>& devices,
                               const std::function<void()>& meanwhile) {
  return threads.ForEach([&](size_t i) { return CheckInStopCopy(*devices[i]); }, meanwhile);
}

absl::Status StopForGood(StepThreads& threads, const std::vector<Device*>& devices,
                         const std::function<void()>& meanwhile, StepLog* log) {
  return threads.ForEach(
      [&](size_t i) -> absl::Status {
        GODWIT_RETURN_IF_ERROR(CheckInStopCopy(*devices[i]));
        return SetStateOf(*devices[i], i, DeviceState::kStop, log).status();
      },
      meanwhile);
}

absl::Status PutBackToRunning(StepThreads& threads, const std::vector<Device*>& devices,
                              SessionObserver& observer, std::vector<DeviceReport>& reports,
                              const std::function<void()>& meanwhile) {
  // Together, as they were stopped: one that runs must not write into one that has not stopped
  // being quiet. What fails here is found again by the next step.
  if (devices.size() > 1) {
    (void)threads.ForEach(
        [&](size_t i) { return devices[i]->SetState(DeviceState::kRunningP2p).status(); },
        meanwhile);
  }
  std::vector<std::string> notes(devices.size());
  const absl::Status back = threads.ForEach(
      [&](size_t i) -> absl::Status {
        absl::StatusOr<UniqueFd> running = devices[i]->SetState(DeviceState::kRunning);
        // Its state is whole in all states but ERROR, and a reset throws it away: first ask again,
        // since EBUSY, EINTR or ENOMEM may pass.
        for (int again = 0; again < kRunningRetries && !running.ok(); ++again) {
          std::this_thread::sleep_for(kRunningRetryInterval);
          running = devices[i]->SetState(DeviceState::kRunning);
        }
        if (running.ok()) return absl::OkStatus();
        const absl::Status reset = devices[i]->Reset();
        if (!reset.ok()) {
          return Annotate(reset, absl::StrCat("device ", devices[i]->name(),
                                              " could not be put back to RUNNING (",
                                              running.status().message(), "), and its reset"));
        }
        notes[i] = absl::StrCat("device ", devices[i]->name(),
                                " had to be reset to get back to RUNNING, and its state is lost: ",
                                running.status().message());
        return absl::OkStatus();
      },
      meanwhile);
  absl::Status lost;
  for (size_t i = 0; i < notes.size(); ++i) {
    if (notes[i].empty()) continue;
    reports[i].state_lost = true;
    observer.OnNote(notes[i]);
    if (lost.ok()) lost = absl::DataLossError(notes[i]);
  }
  return back.ok() ? lost : back;
}

absl::Status ResetAll(StepThreads& threads, const std::vector<Device*>& devices,
                      const std::function<void()>& meanwhile) {
  return threads.ForEach(
      [&](size_t i) {
        return Annotate(devices[i]->Reset(),
                        absl::StrCat("device ", devices[i]->name(), " could not be reset"));
      },
      meanwhile);
}

absl::Status CheckMoveTogether(const std::vector<Device*>& devices) {
  if (devices.empty()) return absl::InvalidArgumentError("no device to move");
  if (devices.size() > kDevicesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(devices.size(), " devices, a session moves at most ", kDevicesMax));
  }
  if (devices.size() == 1) return absl::OkStatus();
  for (const Device* device : devices) {
    if (device->flags().p2p) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "device ", device->name(),
        " has no P2P state, so it can't move together with others: move it in a session alone"));
  }
  return absl::OkStatus();
}

}  // namespace godwit
