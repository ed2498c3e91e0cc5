// A file as a device: its bytes are the stream, so that cmp(1) can check a migration.
#ifndef GODWIT_VFIO_FILE_DEVICE_H_
#define GODWIT_VFIO_FILE_DEVICE_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "godwit/device.h"
#include "vfio/device_role.h"

namespace godwit {

// As a source, STOP_COPY opens the file for reading. As a target, RESUMING opens it for writing,
// creates it if absent (mode 0600) but does not truncate it: what is there is overwritten in
// place, and RESUMING → STOP cuts it to the length written. Files have no peers, so P2P is true.
//
// Until the device has come back to RUNNING, Reset() removes the file if this session created it.
// A file that was there before stays as it is then: overwritten as far as the session got.
//
// Ownership: each data_fd is a description of the caller's own; the device keeps a duplicate of a
//            target's.
// Threads:   as Device.
// Blocking:  as the file system does.
// Errors:    Open() refuses what could not work later (no such file, a directory, no permission)
//            with a message for the user; the file may still change before it is opened. A
//            saving data_fd outlives STOP_COPY, unlike a real device's.
class FileDevice final : public Device {
 public:
  static absl::StatusOr<std::unique_ptr<FileDevice>> Open(const std::string& path, DeviceRole role);

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "file"; }
  MigrationFlags flags() const override { return {.p2p = true, .pre_copy = false}; }
  absl::StatusOr<DeviceState> State() override { return state_; }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override;
  absl::Status Reset() override;
  absl::StatusOr<uint64_t> StopCopyBytes() override;
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override;
  absl::StatusOr<std::string> SaveConfig() override { return std::string(); }
  absl::Status LoadConfig(absl::string_view config) override;

 private:
  FileDevice(const std::string& path, DeviceRole role);
  // One arc of the table. On failure nothing has changed.
  absl::Status Step(DeviceState next, UniqueFd& data_fd);
  absl::StatusOr<UniqueFd> OpenToSave() const;
  absl::StatusOr<UniqueFd> OpenToLoad();
  absl::Status CutToLengthWritten() const;

  const std::string path_;
  const std::string name_;
  const DeviceRole role_;

  DeviceState state_ = DeviceState::kRunning;
  UniqueFd loading_;            // in RESUMING: shares its offset with the caller's data_fd
  bool created_by_us_ = false;  // in this session
};

}  // namespace godwit

#endif  // GODWIT_VFIO_FILE_DEVICE_H_
