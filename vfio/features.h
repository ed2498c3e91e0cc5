// The migration ioctls of a VFIO device, as calls that return a Status.
//
// Threads and blocking are the kernel's: MIG_DEVICE_STATE waits behind a driver's state lock.
#ifndef GODWIT_VFIO_FEATURES_H_
#define GODWIT_VFIO_FEATURES_H_

#include <absl/status/statusor.h>

#include "godwit/device.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Unimplemented if the device (or its driver) can't migrate.
absl::StatusOr<MigrationFlags> ProbeMigration(VfioKernel& kernel, int device);

// What else the device says that it has, asked by PROBE alone: nothing changes.
struct VfioFeatures {
  bool data_size = false;        // MIG_DATA_SIZE
  bool dma_logging = false;      // DMA_LOGGING_START, _STOP and _REPORT, all three
  bool precopy_info_v2 = false;  // MIG_PRECOPY_INFOv2, from kernel 7.1 on

  friend bool operator==(const VfioFeatures&, const VfioFeatures&) = default;
};
VfioFeatures ProbeFeatures(VfioKernel& kernel, int device);

// From then on, until the device is closed, pre-copy information has flags that mean something.
absl::Status OptIntoPrecopyInfoV2(VfioKernel& kernel, int device);

absl::StatusOr<DeviceState> GetDeviceState(VfioKernel& kernel, int device);

// One SET: the kernel walks the states between by itself. An invalid fd where no stream was
// opened. FailedPrecondition where the kernel says EINVAL: no such arc, or a refused stream.
absl::StatusOr<UniqueFd> SetDeviceState(VfioKernel& kernel, int device, DeviceState wanted);

// Unimplemented if the kernel or the driver has no MIG_DATA_SIZE.
absl::StatusOr<uint64_t> GetStopCopyBytes(VfioKernel& kernel, int device);

// `has_flags`: OptIntoPrecopyInfoV2() was called on the device. Without it, what the kernel leaves
// in the flags is garbage and not looked at.
absl::StatusOr<PrecopyInfo> ReadPrecopyInfo(VfioKernel& kernel, int data_fd, bool has_flags);

}  // namespace godwit

#endif  // GODWIT_VFIO_FEATURES_H_
