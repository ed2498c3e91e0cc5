#include "vfio/cdev.h"

#include <absl/strings/str_cat.h>

#include <cerrno>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/uapi.h"

namespace godwit {
namespace {

constexpr char kIommuPath[] = "/dev/iommu";

absl::Status BindFailed(int error, const SysfsDevice& device) {
  switch (error) {
    case EINVAL:  // what the kernel says to the second who binds a cdev
    case EBUSY:   // someone has it through its group
      return absl::UnavailableError(absl::StrCat(device.cdev, ": in use by another process"));
    case ENODEV:
      return ErrnoStatus(error, absl::StrCat(device.cdev, ": is its VFIO driver bound?"));
    case EPERM:
      return ErrnoStatus(error, absl::StrCat(device.cdev,
                                             ": without interrupt remapping the administrator "
                                             "must set iommufd.allow_unsafe_interrupts"));
    default:
      return ErrnoStatus(error, absl::StrCat(device.cdev, ": VFIO_DEVICE_BIND_IOMMUFD"));
  }
}

}  // namespace

absl::StatusOr<VfioHandles> OpenThroughCdev(VfioKernel& kernel, const SysfsDevice& device) {
  if (device.cdev.empty()) {
    return absl::NotFoundError(
        absl::StrCat(device.path, "/vfio-dev: the kernel gives the device no file of its own"));
  }
  VfioHandles handles;
  GODWIT_ASSIGN_OR_RETURN(
      handles.container,
      OpenVfioFile(kernel, kIommuPath, "is iommufd in this kernel? (modprobe iommufd)",
                   "is in use"));
  GODWIT_ASSIGN_OR_RETURN(
      handles.device, OpenVfioFile(kernel, device.cdev, "has this kernel CONFIG_VFIO_DEVICE_CDEV?",
                                   "in use by another process"));
  uapi::BindIommufdArgument bind = {sizeof(bind), 0, handles.container.get(), 0};
  const int error = -kernel.Ioctl(handles.device.get(), uapi::kDeviceBindIommufd, &bind);
  if (error > 0) return BindFailed(error, device);
  return handles;
}

}  // namespace godwit
