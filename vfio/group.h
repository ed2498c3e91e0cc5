// The older way to a VFIO device: container, group, device.
#ifndef GODWIT_VFIO_GROUP_H_
#define GODWIT_VFIO_GROUP_H_

#include <absl/status/statusor.h>

#include "vfio/sysfs.h"
#include "vfio/vfio_handles.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// REQUIRES: `device` has an IOMMU group. Every error says what to do about it; Unavailable if the
// group is in use.
absl::StatusOr<VfioHandles> OpenThroughGroup(VfioKernel& kernel, const SysfsDevice& device);

}  // namespace godwit

#endif  // GODWIT_VFIO_GROUP_H_
