#include "vfio/soft_profile_device.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/state_table.h"

namespace godwit {
namespace {

using Kind = SoftExtent::Kind;

constexpr std::chrono::seconds kReaderGoneTimeout{30};

std::optional<uint64_t> LostAt(const SoftInjection& injection) {
  if (injection.reset_at) return injection.reset_at;
  return injection.error_at ? injection.error_at : injection.detach_at;
}

}  // namespace

SoftProfileDevice::SoftProfileDevice(std::string name, const SoftDeviceOptions& options)
    : name_(std::move(name)),
      options_(options),
      traits_(TraitsOf(options.profile)),
      content_(options.seed),
      image_(options.profile, options.size_bytes, content_) {
  GODWIT_CHECK(CheckProfileSize(options.profile, options.size_bytes).ok());
}

absl::Status SoftProfileDevice::LookAtStream() {
  const bool lost = (save_ != nullptr && save_->lost()) || (load_ != nullptr && load_->lost());
  if (lost && !misfortune_over_) {
    misfortune_over_ = true;
    const SoftInjection& injection = options_.injection;
    if (injection.reset_at) BecomeRunning();
    if (injection.error_at) state_ = DeviceState::kError;
    detached_ = injection.detach_at.has_value();
  }
  if (!detached_) return absl::OkStatus();
  DropStreams();
  return absl::UnavailableError(absl::StrCat(name_, ": the device is gone (ENOTCONN)"));
}

absl::StatusOr<DeviceState> SoftProfileDevice::State() {
  GODWIT_RETURN_IF_ERROR(LookAtStream());
  return state_;
}

absl::StatusOr<UniqueFd> SoftProfileDevice::SetState(DeviceState wanted) {
  GODWIT_RETURN_IF_ERROR(LookAtStream());
  if (state_ == DeviceState::kError) {
    return ErrnoStatus(EIO, absl::StrCat(name_, ": the device is in ERROR until it is reset"));
  }
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

absl::Status SoftProfileDevice::Step(DeviceState next, UniqueFd& data_fd) {
  if (options_.fail_state == next) {
    return absl::InternalError(absl::StrCat("asked to by fail_state=", DeviceStateName(next)));
  }
  if (next == DeviceState::kStop && options_.injection.stop_error != SoftStopError::kNone) {
    const bool busy = options_.injection.stop_error == SoftStopError::kBusy;
    return ErrnoStatus(busy ? EBUSY : EIO, "asked to by stop_error");
  }
  if (state_ == DeviceState::kResuming) GODWIT_RETURN_IF_ERROR(FinishLoad());
  if (state_ == DeviceState::kStopCopy) GODWIT_RETURN_IF_ERROR(LeaveStopCopy());
  if (!IsSaving(next)) {
    save_.reset();
    if (load_ == nullptr) parts_object_.reset();
  } else if (save_ == nullptr) {
    GODWIT_RETURN_IF_ERROR(OpenSave(next, data_fd));
  }
  if (next == DeviceState::kStopCopy) PutTheRest();
  if (next == DeviceState::kResuming) GODWIT_RETURN_IF_ERROR(OpenLoad(data_fd));
  state_ = next;
  return absl::OkStatus();
}

absl::Status SoftProfileDevice::LeaveStopCopy() {
  if (!options_.injection.block_stop || save_->WaitForReaderGone(kReaderGoneTimeout)) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError("the reader has not closed its data_fd in 30 s");
}

absl::Status SoftProfileDevice::FinishLoad() {
  GODWIT_RETURN_IF_ERROR(load_->Finish());
  if (options_.fail_load) return absl::FailedPreconditionError("asked to by fail_load");
  content_verified_ = load_->complete();
  load_.reset();
  parts_object_.reset();
  return absl::OkStatus();
}

absl::Status SoftProfileDevice::OpenLoad(UniqueFd& data_fd) {
  std::optional<VirtioPartsObject> object;
  if (traits_.framing == SoftFraming::kVirtio) {
    GODWIT_ASSIGN_OR_RETURN(VirtioPartsObject created, VirtioPartsObject::Create());
    object.emplace(std::move(created));
  }
  SoftLoadEnd::Options options = {.fail_at = options_.injection.fail_write_at};
  if (!misfortune_over_) options.lost_at = LostAt(options_.injection);
  GODWIT_ASSIGN_OR_RETURN(load_, SoftLoadEnd::Open(image_, options, data_fd));
  if (object) parts_object_.emplace(*std::move(object));
  content_verified_ = false;
  return absl::OkStatus();
}

absl::Status SoftProfileDevice::OpenSave(DeviceState next, UniqueFd& data_fd) {
  std::optional<VirtioPartsObject> object;
  if (traits_.framing == SoftFraming::kVirtio) {
    GODWIT_ASSIGN_OR_RETURN(VirtioPartsObject created, VirtioPartsObject::Create());
    object.emplace(std::move(created));
  }
  const SoftInjection& injection = options_.injection;
  SoftSaveSocket::Options options = {.first_read_bytes = options_.first_read_bytes,
                                     .read_bytes = options_.read_bytes,
                                     .truncate_at = injection.truncate_at,
                                     .fail_at = injection.fail_read_at};
  if (!misfortune_over_) options.lost_at = LostAt(injection);
  const bool pre_copy = next != DeviceState::kStopCopy;
  if (pre_copy) options.nothing_now = traits_.nothing_now;
  GODWIT_ASSIGN_OR_RETURN(save_, SoftSaveSocket::Open(image_, options, data_fd));
  if (object) parts_object_.emplace(*std::move(object));
  precopy_calls_ = 0;
  image_put_ = false;
  initial_taken_ = false;
  dirty_since_ = std::chrono::steady_clock::now();
  if (!pre_copy || injection.fail_precopy) return absl::OkStatus();
  if (traits_.precopy_bytes > 0) {
    save_->Put({Kind::kData, 0, traits_.precopy_bytes});
    image_put_ = true;
  } else {
    PutWholeImage();
  }
  return absl::OkStatus();
}

void SoftProfileDevice::PutWholeImage() {
  save_->Put({Kind::kOpening, 0, 0});
  if (options_.injection.unknown_tag != SoftUnknownTag::kNone) {
    const bool optional = options_.injection.unknown_tag == SoftUnknownTag::kOptional;
    save_->Put({optional ? Kind::kUnknownOptional : Kind::kUnknownMandatory, 0, 0});
  }
  save_->Put({Kind::kData, 0, options_.size_bytes});
  image_put_ = true;
}

void SoftProfileDevice::PutTheRest() {
  if (!image_put_) {
    PutWholeImage();
  } else if (traits_.precopy_bytes > 0) {
    save_->Put({Kind::kData, traits_.precopy_bytes, options_.size_bytes - traits_.precopy_bytes});
  } else {
    PutDirty();
  }
  save_->Put({Kind::kClosing, 0, 0});
  if (options_.injection.excess_bytes > 0) {
    save_->Put({Kind::kZeros, 0, options_.injection.excess_bytes});
  }
  save_->Finish();
}

uint64_t SoftProfileDevice::DirtyBytes() const {
  if (traits_.framing == SoftFraming::kVirtio) return options_.size_bytes;
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - dirty_since_).count();
  const double dirty = static_cast<double>(options_.dirty_bytes_per_second) * seconds;
  return dirty < static_cast<double>(options_.size_bytes) ? static_cast<uint64_t>(dirty)
                                                          : options_.size_bytes;
}

uint64_t SoftProfileDevice::PutDirty() {
  const uint64_t bytes = DirtyBytes();
  if (bytes == 0 || !save_->Put({Kind::kData, 0, bytes})) return 0;
  dirty_since_ = std::chrono::steady_clock::now();
  return bytes;
}

absl::StatusOr<uint64_t> SoftProfileDevice::StopCopyBytes() {
  GODWIT_RETURN_IF_ERROR(LookAtStream());
  if (save_ == nullptr || !image_put_) return options_.size_bytes;
  const uint64_t unread = save_->pending_bytes();
  if (state_ == DeviceState::kStopCopy) return unread;
  if (traits_.precopy_bytes > 0) return unread + options_.size_bytes - traits_.precopy_bytes;
  return unread + DirtyBytes();
}

absl::StatusOr<PrecopyInfo> SoftProfileDevice::GetPrecopyInfo(int /*data_fd*/) {
  GODWIT_RETURN_IF_ERROR(LookAtStream());
  if (!options_.flags.pre_copy) {
    return absl::UnimplementedError(absl::StrCat(name_, ": the device has no PRE_COPY"));
  }
  if (state_ != DeviceState::kPreCopy && state_ != DeviceState::kPreCopyP2p) {
    return absl::FailedPreconditionError(
        absl::StrCat(name_, ": no pre-copy information in ", DeviceStateName(state_)));
  }
  if (options_.injection.fail_precopy) return PrecopyInfo{};
  const uint64_t before = save_->pending_bytes();
  initial_taken_ = initial_taken_ || before == 0;
  if (!initial_taken_) return PrecopyInfo{.initial_bytes = before};
  const uint32_t calls_max = options_.precopy_calls;
  const bool may = calls_max == 0 || precopy_calls_ < calls_max;
  // virtio appends whatever is still unread; mlx5's buffer has to be empty.
  uint64_t made = 0;  // counted here: it may be with the reader before we have looked again
  if (traits_.info_makes_dirty && may && (before == 0 || traits_.framing == SoftFraming::kVirtio)) {
    ++precopy_calls_;
    made = PutDirty();
  }
  return PrecopyInfo{.dirty_bytes = before + made};
}

void SoftProfileDevice::DropStreams() {
  save_.reset();
  load_.reset();
  parts_object_.reset();
}

void SoftProfileDevice::BecomeRunning() {
  DropStreams();
  content_verified_ = false;
  state_ = DeviceState::kRunning;
}

absl::Status SoftProfileDevice::Reset() {
  GODWIT_RETURN_IF_ERROR(LookAtStream());
  BecomeRunning();
  return absl::OkStatus();
}

absl::StatusOr<std::string> SoftProfileDevice::SaveConfig() {
  GODWIT_RETURN_IF_ERROR(LookAtStream());
  return absl::StrCat("godwit-soft 1 size=", options_.size_bytes, " seed=", options_.seed,
                      options_.profile == SoftProfile::kPlain ? "" : " profile=",
                      options_.profile == SoftProfile::kPlain ? "" : traits_.name);
}

absl::Status SoftProfileDevice::LoadConfig(absl::string_view config) {
  GODWIT_ASSIGN_OR_RETURN(const std::string own, SaveConfig());
  if (config == own) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      name_, ": the config is of another device: got '", absl::CHexEscape(config.substr(0, 80)),
      "', this one is '", own, "'; give both sides the same profile, size and seed"));
}

}  // namespace godwit
