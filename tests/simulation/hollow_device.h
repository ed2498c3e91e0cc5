// A device whose stream is a number of bytes: it can be a TiB, and moving it costs no copy.
#ifndef GODWIT_TESTS_SIMULATION_HOLLOW_DEVICE_H_
#define GODWIT_TESTS_SIMULATION_HOLLOW_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "godwit/device.h"
#include "tests/simulation/scheduler.h"

namespace godwit::simulation {

// Of a data_fd. What is read begins with its own place in the stream and is else left as it was in
// the caller's memory; what is written must begin with the place where it belongs. So a packet that
// comes twice, late or not at all is seen, and nobody makes or stores the bytes in between.
//
// Ownership: the device's that it came from, by whose fd it is found.
// Threads:   a fiber's. Blocking: Write(), for the time that the device takes.
// Errors:    misplaced().
class HollowStream {
 public:
  explicit HollowStream(uint64_t bytes, uint64_t bytes_per_second)
      : bytes_(bytes), bytes_per_second_(bytes_per_second) {}

  static HollowStream* Of(int fd);
  static void Close(int fd);
  // An fd by which read(2) and write(2) find it.
  absl::StatusOr<UniqueFd> Open();

  size_t Read(void* bytes, size_t count);
  size_t Write(const void* bytes, size_t count);

  uint64_t position() const { return position_; }
  // Writes that did not belong where they came.
  uint64_t misplaced() const { return misplaced_; }

 private:
  const uint64_t bytes_;
  const uint64_t bytes_per_second_;  // written; 0: it takes no time
  uint64_t position_ = 0;
  uint64_t misplaced_ = 0;
};

// As a source it has a stream of `bytes`; as a target it checks that it gets that.
class HollowDevice final : public Device {
 public:
  HollowDevice(std::string name, uint64_t bytes, uint64_t load_bytes_per_second)
      : name_(std::move(name)), bytes_(bytes), stream_(bytes, load_bytes_per_second) {}

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "hollow"; }
  MigrationFlags flags() const override { return {}; }
  absl::StatusOr<DeviceState> State() override { return state_; }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override;
  absl::Status Reset() override;
  absl::StatusOr<uint64_t> StopCopyBytes() override { return bytes_; }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override;
  absl::StatusOr<std::string> SaveConfig() override { return "a hollow device"; }
  absl::Status LoadConfig(absl::string_view config) override;
  bool content_verified() const override { return loaded_; }

  const HollowStream& stream() const { return stream_; }

 private:
  const std::string name_;
  const uint64_t bytes_;
  HollowStream stream_;
  DeviceState state_ = DeviceState::kRunning;
  bool loaded_ = false;
};

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_HOLLOW_DEVICE_H_
