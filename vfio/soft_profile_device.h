// A software device that behaves like a driver, with its failures.
#ifndef GODWIT_VFIO_SOFT_PROFILE_DEVICE_H_
#define GODWIT_VFIO_SOFT_PROFILE_DEVICE_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "godwit/device.h"
#include "vfio/soft_device.h"
#include "vfio/soft_framing.h"
#include "vfio/soft_load_end.h"
#include "vfio/soft_save_socket.h"
#include "vfio/virtio_parts.h"

namespace godwit {

// Its state is an image that its options define; it loads nothing else. Dirty data is the same
// image sent again.
//
// Ownership: each data_fd is the far end of a socket, or a second fd of a memfd, of the device's.
// Threads:   as Device; the device has one thread of its own while a stream is open.
// Blocking:  RESUMING → STOP checks what was written and not yet looked at. With block_stop leaving
//            STOP_COPY waits for the reader to close its fd, for half a minute at most.
// Errors:    as Device. Which errno a data_fd says is not the driver's: see soft_save_socket.h and
//            soft_load_end.h. In ERROR changes fail as EIO does; a detached device says Unavailable
//            to everything.
class SoftProfileDevice final : public Device {
 public:
  // REQUIRES: CheckProfileSize(options.profile, options.size_bytes) is OK
  SoftProfileDevice(std::string name, const SoftDeviceOptions& options);

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "soft"; }
  MigrationFlags flags() const override { return options_.flags; }
  absl::StatusOr<DeviceState> State() override;
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override;
  absl::Status Reset() override;
  absl::StatusOr<uint64_t> StopCopyBytes() override;
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override;
  absl::StatusOr<std::string> SaveConfig() override;
  absl::Status LoadConfig(absl::string_view config) override;
  bool content_verified() const override { return content_verified_; }

 private:
  // Learns what has happened on the stream. An error once the device is detached.
  absl::Status LookAtStream();
  absl::Status Step(DeviceState next, UniqueFd& data_fd);
  absl::Status LeaveStopCopy();
  absl::Status FinishLoad();
  absl::Status OpenSave(DeviceState next, UniqueFd& data_fd);
  absl::Status OpenLoad(UniqueFd& data_fd);
  void PutWholeImage();
  void PutTheRest();
  uint64_t PutDirty();          // how much of the image
  uint64_t DirtyBytes() const;  // of it, since the last that was put
  void DropStreams();
  void BecomeRunning();

  const std::string name_;
  const SoftDeviceOptions options_;
  const SoftProfileTraits& traits_;
  const SoftContent content_;
  const SoftImage image_;

  DeviceState state_ = DeviceState::kRunning;
  bool content_verified_ = false;
  bool detached_ = false;
  bool misfortune_over_ = false;          // reset_at, error_at and detach_at happen once
  std::unique_ptr<SoftSaveSocket> save_;  // in the saving states
  std::unique_ptr<SoftLoadEnd> load_;     // in RESUMING
  std::optional<VirtioPartsObject> parts_object_;
  // Of the saving session.
  bool image_put_ = false;      // all of it, or what a raw image has for PRE_COPY
  bool initial_taken_ = false;  // and it has left
  uint32_t precopy_calls_ = 0;
  std::chrono::steady_clock::time_point dirty_since_;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_PROFILE_DEVICE_H_
