// A VFIO device opened by plain system calls, for the lab's test programs: what they check is
// Godwit's own way to the same device, so they share no code with it.
#ifndef GODWIT_TESTS_LAB_RAW_DEVICE_H_
#define GODWIT_TESTS_LAB_RAW_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "godwit/unique_fd.h"

namespace godwit::lab {

// Values of enum vfio_device_mig_state, and of the ioctls that Debian 12's headers lack.
inline constexpr uint32_t kError = 0, kStop = 1, kRunning = 2, kStopCopy = 3, kResuming = 4,
                          kRunningP2p = 5, kPreCopy = 6, kPreCopyP2p = 7, kStates = 8;
std::string_view StateName(uint32_t state);

struct RawPrecopyInfo {
  uint32_t argsz;
  uint32_t flags;
  uint64_t initial_bytes;
  uint64_t dirty_bytes;
};

// Ownership: its fds.
// Threads:   one.
// Blocking:  as the driver does.
// Errors:    what a test may expect is returned as an errno; all else throws std::system_error.
class RawDevice {
 public:
  // `path`: the device's folder, /sys/bus/mdev/devices/UUID.
  explicit RawDevice(const std::string& path);

  const std::string& path() const { return path_; }

  // VFIO_DEVICE_FEATURE: 0, or an errno. `flags`: index and GET, SET or PROBE.
  int Feature(uint32_t flags, void* payload, size_t payload_bytes) const;

  uint32_t MigrationFlags() const;
  uint32_t State() const;
  // 0, or an errno. `data_fd`, if given, gets the stream that the change opened, if any.
  int SetState(uint32_t wanted, UniqueFd* data_fd = nullptr) const;
  void Reset() const;
  uint64_t StopCopyBytes() const;

  uint32_t ReadBar(uint32_t offset) const;
  void WriteBar(uint32_t offset, uint32_t value) const;

 private:
  int OpenDevice() const;
  uint64_t BarOffset() const;

  const std::string path_;
  const UniqueFd container_;
  const UniqueFd group_;
  const UniqueFd device_;
};

// 0, or an errno.
int GetPrecopyInfo(int data_fd, RawPrecopyInfo* info);

// A file of one line in the device's folder in sysfs, as "synth/seed".
std::string ReadAttribute(const std::string& device, const std::string& name);
// 0, or an errno.
int TryWriteAttribute(const std::string& device, const std::string& name, const std::string& value);
void WriteAttribute(const std::string& device, const std::string& name, const std::string& value);

// Throws std::runtime_error(what) unless it holds.
void Expect(bool holds, const std::string& what);

}  // namespace godwit::lab

#endif  // GODWIT_TESTS_LAB_RAW_DEVICE_H_
