// The newer way to a VFIO device: a character device of its own, bound to an iommufd.
#ifndef GODWIT_VFIO_CDEV_H_
#define GODWIT_VFIO_CDEV_H_

#include <absl/status/statusor.h>

#include "vfio/sysfs.h"
#include "vfio/vfio_handles.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Bound, not attached to an address space: enough for every ioctl of migration. Every error says
// what to do about it. NotFound if this kernel has no such way: no cdev, no /dev/iommu.
// Unavailable if the device is in use.
absl::StatusOr<VfioHandles> OpenThroughCdev(VfioKernel& kernel, const SysfsDevice& device);

}  // namespace godwit

#endif  // GODWIT_VFIO_CDEV_H_
