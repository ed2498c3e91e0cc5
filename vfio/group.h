// The older way to a VFIO device: container, group, device.
#ifndef GODWIT_VFIO_GROUP_H_
#define GODWIT_VFIO_GROUP_H_

#include <absl/status/statusor.h>

#include "godwit/unique_fd.h"
#include "vfio/sysfs.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// The fds that keep a device open. Closed from the last member up: the device goes first, as the
// kernel wants it.
struct VfioHandles {
  UniqueFd container;
  UniqueFd group;
  UniqueFd device;
};

// REQUIRES: `device` has an IOMMU group. Every error says what to do about it; Unavailable if the
// group is in use.
absl::StatusOr<VfioHandles> OpenThroughGroup(VfioKernel& kernel, const SysfsDevice& device);

}  // namespace godwit

#endif  // GODWIT_VFIO_GROUP_H_
