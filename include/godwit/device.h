// A device whose state can be moved: the contract that kernel, software and file devices and an
// embedder's own devices keep.
#ifndef GODWIT_DEVICE_H_
#define GODWIT_DEVICE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "godwit/unique_fd.h"

namespace godwit {

// Values of enum vfio_device_mig_state in linux/vfio.h.
enum class DeviceState : uint32_t {
  kError = 0,
  kStop = 1,
  kRunning = 2,
  kStopCopy = 3,
  kResuming = 4,
  kRunningP2p = 5,
  kPreCopy = 6,
  kPreCopyP2p = 7,
};
inline constexpr uint32_t kDeviceStateCount = 8;

// "RUNNING", "STOP_COPY", …; "?" for a number that is no state.
absl::string_view DeviceStateName(DeviceState state);

// What VFIO_DEVICE_FEATURE_MIGRATION says. STOP_COPY is what makes a device migratable at all.
struct MigrationFlags {
  bool p2p = false;
  bool pre_copy = false;

  friend bool operator==(const MigrationFlags&, const MigrationFlags&) = default;
};

// "STOP_COPY", "STOP_COPY P2P PRE_COPY", …
std::string MigrationFlagsName(MigrationFlags flags);

// What VFIO_MIG_GET_PRECOPY_INFO says: estimates, in bytes.
struct PrecopyInfo {
  uint64_t initial_bytes = 0;
  uint64_t dirty_bytes = 0;
  bool reinit = false;  // initial_bytes is new and may have grown (kernel 7.1)
};

// One device with VFIO migration semantics (linux/vfio.h, "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE").
//
// Ownership: the session borrows the device; the device outlives it. Each data_fd belongs to who
//            asked for the state change.
// Threads:   one thread at a time calls methods; another may read or write the data_fd meanwhile.
// Blocking:  SetState() and Reset() may block for as long as the hardware takes, and behind a
//            read or write of the data_fd that is under way.
// Errors:    FailedPrecondition: the arc is not in the state table, or the device refused its
//            stream. After any error the state is what State() says, not what was asked for.
class Device {
 public:
  virtual ~Device() = default;

  // For messages: how the user named the device, or close to it.
  virtual const std::string& name() const = 0;
  // "vfio", "soft", "file" or an embedder's word; both sides of a session must agree on it.
  virtual absl::string_view kind() const = 0;
  virtual MigrationFlags flags() const = 0;

  virtual absl::StatusOr<DeviceState> State() = 0;

  // Walks to `wanted` by the next-step table, through interior states where needed. Returns the
  // stream of a saving or resuming session that the walk opened, else an invalid fd. The fd is a
  // stream: read(2) or write(2) only, short transfers are normal, and it is dead (ENODEV, or
  // end of file) once the device leaves the saving or resuming states.
  virtual absl::StatusOr<UniqueFd> SetState(DeviceState wanted) = 0;

  // To RUNNING from anywhere, ERROR and RESUMING included. State that was half loaded is gone.
  virtual absl::Status Reset() = 0;

  // An estimate, in bytes, that can be less than the stream; Unimplemented where there is none.
  virtual absl::StatusOr<uint64_t> StopCopyBytes() = 0;

  // REQUIRES: `data_fd` came from this device. FailedPrecondition outside PRE_COPY and
  // PRE_COPY_P2P, Unimplemented where the device has none. May have side effects: on some
  // drivers it is what makes the next dirty chunk.
  virtual absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) = 0;

  // The state that is not in the stream (for PCI: config space and interrupts), asked for in STOP
  // or STOP_COPY, applied in STOP. At most kConfigBytesMax; may be empty.
  virtual absl::StatusOr<std::string> SaveConfig() = 0;
  virtual absl::Status LoadConfig(absl::string_view config) = 0;

  // Whether what was loaded is what should have been. Only devices that know the right content
  // (soft) have an opinion: true = checked and right; false = no opinion. A device that finds its
  // content wrong fails RESUMING → STOP instead.
  virtual bool content_verified() const { return false; }
};

inline constexpr size_t kConfigBytesMax = 64 * 1024;

}  // namespace godwit

#endif  // GODWIT_DEVICE_H_
