#include "tests/simulation/hollow_device.h"

#include <absl/strings/str_cat.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "base/errno_status.h"

namespace godwit::simulation {
namespace {

std::map<int, HollowStream*>& Streams() {
  static auto* const streams = new std::map<int, HollowStream*>();
  return *streams;
}

}  // namespace

HollowStream* HollowStream::Of(int fd) {
  if (Streams().empty()) return nullptr;
  const auto found = Streams().find(fd);
  return found == Streams().end() ? nullptr : found->second;
}

void HollowStream::Close(int fd) { Streams().erase(fd); }

absl::StatusOr<UniqueFd> HollowStream::Open() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "eventfd");
  Streams()[fd.get()] = this;
  return fd;
}

size_t HollowStream::Read(void* bytes, size_t count) {
  const size_t given = static_cast<size_t>(std::min<uint64_t>(count, bytes_ - position_));
  std::memcpy(bytes, &position_, std::min(given, sizeof(position_)));
  position_ += given;
  return given;
}

size_t HollowStream::Write(const void* bytes, size_t count) {
  if (bytes_per_second_ > 0) {
    Scheduler& scheduler = *Scheduler::Current();
    const Duration takes(count * 1'000'000'000 / bytes_per_second_);
    scheduler.Wait(
        "a device that loads", [] { return false; }, scheduler.now() + takes);
  }
  if (std::memcmp(bytes, &position_, std::min(count, sizeof(position_))) != 0) ++misplaced_;
  position_ += count;
  return count;
}

absl::StatusOr<UniqueFd> HollowDevice::SetState(DeviceState wanted) {
  if (state_ == DeviceState::kResuming && wanted != DeviceState::kResuming) {
    if (stream_.position() != bytes_ || stream_.misplaced() > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(stream_.position(), " bytes came in place of ", bytes_, ", and ",
                       stream_.misplaced(), " writes of them where they don't belong"));
    }
    loaded_ = true;
  }
  state_ = wanted;
  if (wanted == DeviceState::kStopCopy || wanted == DeviceState::kResuming) return stream_.Open();
  return UniqueFd();
}

absl::Status HollowDevice::Reset() {
  state_ = DeviceState::kRunning;
  return absl::OkStatus();
}

absl::StatusOr<PrecopyInfo> HollowDevice::GetPrecopyInfo(int /*data_fd*/) {
  return absl::UnimplementedError("it has no pre-copy");
}

absl::Status HollowDevice::LoadConfig(absl::string_view config) {
  if (config == "a hollow device") return absl::OkStatus();
  return absl::FailedPreconditionError("its configuration is another's");
}

}  // namespace godwit::simulation
