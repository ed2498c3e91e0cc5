// The way by which a device is opened.
#ifndef GODWIT_VFIO_OPEN_VIA_H_
#define GODWIT_VFIO_OPEN_VIA_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "vfio/sysfs.h"
#include "vfio/vfio_handles.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

enum class VfioVia {
  kAuto,   // the cdev where the kernel has that, else the group
  kGroup,  // container and group
  kCdev,   // cdev and iommufd
};

// What stands behind "vfio:" in a SPEC.
struct VfioSpec {
  std::string device;  // as FindVfioDevice() takes it
  VfioVia via = VfioVia::kAuto;
};

// "DEVICE" or "DEVICE,via=group|cdev". InvalidArgument names what is wrong and what is allowed.
absl::StatusOr<VfioSpec> ParseVfioSpec(absl::string_view text);

// Errors as OpenThroughGroup() and OpenThroughCdev(). What is left of the first way tried is
// closed before the second.
absl::StatusOr<VfioHandles> OpenVia(VfioKernel& kernel, const SysfsDevice& device, VfioVia via);

}  // namespace godwit

#endif  // GODWIT_VFIO_OPEN_VIA_H_
