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

absl::StatusOr<DeviceState> GetDeviceState(VfioKernel& kernel, int device);

// One SET: the kernel walks the states between by itself. An invalid fd where no stream was
// opened. FailedPrecondition where the kernel says EINVAL: no such arc, or a refused stream.
absl::StatusOr<UniqueFd> SetDeviceState(VfioKernel& kernel, int device, DeviceState wanted);

// Unimplemented if the kernel or the driver has no MIG_DATA_SIZE.
absl::StatusOr<uint64_t> GetStopCopyBytes(VfioKernel& kernel, int device);

absl::StatusOr<PrecopyInfo> ReadPrecopyInfo(VfioKernel& kernel, int data_fd);

}  // namespace godwit

#endif  // GODWIT_VFIO_FEATURES_H_
