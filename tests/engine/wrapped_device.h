// A device that is another one's, but for what a test changes.
#ifndef GODWIT_TESTS_ENGINE_WRAPPED_DEVICE_H_
#define GODWIT_TESTS_ENGINE_WRAPPED_DEVICE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "godwit/device.h"

namespace godwit {

// Ownership: borrows the device.
// Threads:   as Device; what the test changes is set before, and called on the caller's thread.
// Blocking:  as the device, and as the test's functions.
// Errors:    the device's, and the test's, which come before it.
class WrappedDevice final : public Device {
 public:
  explicit WrappedDevice(Device& device) : device_(device) {}

  std::function<absl::Status(DeviceState wanted)> before_state = [](DeviceState) {
    return absl::OkStatus();
  };
  std::function<absl::Status()> before_reset = [] { return absl::OkStatus(); };
  std::function<void()> before_precopy_info = [] {};
  std::optional<uint64_t> stop_copy_bytes;  // in place of the device's

  const std::string& name() const override { return device_.name(); }
  absl::string_view kind() const override { return device_.kind(); }
  MigrationFlags flags() const override { return device_.flags(); }
  absl::StatusOr<DeviceState> State() override { return device_.State(); }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override {
    const absl::Status before = before_state(wanted);
    if (!before.ok()) return before;
    return device_.SetState(wanted);
  }
  absl::Status Reset() override {
    const absl::Status before = before_reset();
    return before.ok() ? device_.Reset() : before;
  }
  absl::StatusOr<uint64_t> StopCopyBytes() override {
    if (stop_copy_bytes.has_value()) return *stop_copy_bytes;
    return device_.StopCopyBytes();
  }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override {
    before_precopy_info();
    return device_.GetPrecopyInfo(data_fd);
  }
  absl::StatusOr<std::string> SaveConfig() override { return device_.SaveConfig(); }
  absl::Status LoadConfig(absl::string_view config) override { return device_.LoadConfig(config); }
  bool content_verified() const override { return device_.content_verified(); }

 private:
  Device& device_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_WRAPPED_DEVICE_H_
