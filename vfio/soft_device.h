// A device in software: the whole contract, real streams, no hardware.
#ifndef GODWIT_VFIO_SOFT_DEVICE_H_
#define GODWIT_VFIO_SOFT_DEVICE_H_

#include <memory>
#include <optional>
#include <string>

#include "godwit/device.h"
#include "vfio/soft_content.h"
#include "vfio/soft_injection.h"
#include "vfio/soft_profile.h"
#include "vfio/soft_stream.h"

namespace godwit {

struct SoftDeviceOptions {
  uint64_t size_bytes = 0;  // of the stream
  uint64_t seed = 0;        // of its content
  MigrationFlags flags = {.p2p = true, .pre_copy = false};

  // What goes wrong, for tests of those who use the device.
  bool fail_load = false;  // RESUMING → STOP refuses even a right stream
  std::optional<DeviceState> fail_state = std::nullopt;  // this state can't be entered

  // Of a SoftProfileDevice only.
  SoftProfile profile = SoftProfile::kPlain;
  uint64_t dirty_bytes_per_second = 0;
  uint64_t first_read_bytes = 0;  // the most that the first read brings; 0: as the others
  uint64_t read_bytes = 0;        // the most that a read brings; 0: as much as there is
  uint32_t precopy_calls = 0;     // that make dirty data; 0: no limit
  SoftInjection injection = {};
};

// Saves the content that its options define, and loads nothing else: at RESUMING → STOP the
// stream must be exactly what a device with the same options saves, and LoadConfig() takes only
// such a device's config.
//
// With PRE_COPY there is no dirty data: the stream stays silent until STOP_COPY.
//
// Ownership: each data_fd is the far end of a pipe of the device's own.
// Threads:   as Device; the device has one thread of its own while a stream is open.
// Blocking:  never but for RESUMING → STOP, which checks what the pipe (1 MiB) still holds.
// Errors:    as Device. A refused stream leaves the device in RESUMING until Reset(). After
//            Reset() writes to the data_fd fail with EPIPE (and SIGPIPE, if not blocked); reads
//            give what the pipe still held and then end of file.
class SoftDevice final : public Device {
 public:
  SoftDevice(std::string name, const SoftDeviceOptions& options);

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "soft"; }
  MigrationFlags flags() const override { return options_.flags; }
  absl::StatusOr<DeviceState> State() override { return state_; }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override;
  absl::Status Reset() override;
  absl::StatusOr<uint64_t> StopCopyBytes() override { return options_.size_bytes; }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override;
  absl::StatusOr<std::string> SaveConfig() override;
  absl::Status LoadConfig(absl::string_view config) override;
  bool content_verified() const override { return content_verified_; }

 private:
  // One arc of the table. On failure nothing has changed.
  absl::Status Step(DeviceState next, UniqueFd& data_fd);

  const std::string name_;
  const SoftDeviceOptions options_;
  const SoftContent content_;

  DeviceState state_ = DeviceState::kRunning;
  bool content_verified_ = false;
  std::unique_ptr<SoftSaveStream> save_;  // in the saving states
  std::unique_ptr<SoftLoadStream> load_;  // in RESUMING
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_DEVICE_H_
