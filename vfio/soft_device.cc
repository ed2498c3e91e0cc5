#include "vfio/soft_device.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include <utility>
#include <vector>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/state_table.h"

namespace godwit {

SoftDevice::SoftDevice(std::string name, const SoftDeviceOptions& options)
    : name_(std::move(name)), options_(options), content_(options.seed) {}

absl::StatusOr<UniqueFd> SoftDevice::SetState(DeviceState wanted) {
  const absl::StatusOr<std::vector<DeviceState>> path = Walk(options_.flags, state_, wanted);
  if (!path.ok()) return Annotate(path.status(), name_);
  UniqueFd data_fd;
  for (const DeviceState next : *path) {
    const absl::Status status = Step(next, data_fd);
    if (!status.ok()) {
      return Annotate(status, absl::StrCat(name_, ": ", DeviceStateName(state_), " to ",
                                           DeviceStateName(next), " failed"));
    }
  }
  return data_fd;
}

absl::Status SoftDevice::Step(DeviceState next, UniqueFd& data_fd) {
  if (options_.fail_state == next) {
    return absl::InternalError(absl::StrCat("asked to by fail_state=", DeviceStateName(next)));
  }
  if (state_ == DeviceState::kResuming) {
    GODWIT_RETURN_IF_ERROR(load_->Finish());
    if (options_.fail_load) return absl::FailedPreconditionError("asked to by fail_load");
    load_.reset();
    content_verified_ = true;
  }
  if (!IsSaving(next)) {
    save_.reset();
  } else if (save_ == nullptr) {
    GODWIT_ASSIGN_OR_RETURN(save_, SoftSaveStream::Open(content_, options_.size_bytes, data_fd));
  }
  if (next == DeviceState::kStopCopy) save_->Start();
  if (next == DeviceState::kResuming) {
    GODWIT_ASSIGN_OR_RETURN(load_, SoftLoadStream::Open(content_, options_.size_bytes, data_fd));
    content_verified_ = false;
  }
  state_ = next;
  return absl::OkStatus();
}

absl::Status SoftDevice::Reset() {
  save_.reset();
  load_.reset();
  content_verified_ = false;
  state_ = DeviceState::kRunning;
  return absl::OkStatus();
}

absl::StatusOr<PrecopyInfo> SoftDevice::GetPrecopyInfo(int /*data_fd*/) {
  if (!options_.flags.pre_copy) {
    return absl::UnimplementedError(absl::StrCat(name_, ": the device has no PRE_COPY"));
  }
  if (state_ != DeviceState::kPreCopy && state_ != DeviceState::kPreCopyP2p) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ": no pre-copy information in ", DeviceStateName(state_)));
  }
  return PrecopyInfo{};
}

absl::StatusOr<std::string> SoftDevice::SaveConfig() {
  return absl::StrCat("godwit-soft 1 size=", options_.size_bytes, " seed=", options_.seed);
}

absl::Status SoftDevice::LoadConfig(absl::string_view config) {
  GODWIT_ASSIGN_OR_RETURN(const std::string own, SaveConfig());
  if (config == own) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      name_, ": the config is of another device: got '", absl::CHexEscape(config.substr(0, 80)),
      "', this one is '", own, "'; give both sides the same size and seed"));
}

}  // namespace godwit
