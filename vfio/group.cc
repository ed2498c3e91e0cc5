#include "vfio/group.h"

#include <absl/strings/str_cat.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/uapi.h"

namespace godwit {
namespace {

constexpr char kContainerPath[] = "/dev/vfio/vfio";

absl::StatusOr<UniqueFd> OpenContainer(VfioKernel& kernel) {
  GODWIT_ASSIGN_OR_RETURN(UniqueFd container,
                          OpenVfioFile(kernel, kContainerPath,
                                       "is the vfio module loaded? (modprobe vfio)", "is in use"));
  const int fd = container.get();
  const int version = kernel.Ioctl(fd, VFIO_GET_API_VERSION, uintptr_t{0});
  if (version != VFIO_API_VERSION) {
    return absl::FailedPreconditionError(absl::StrCat(
        kContainerPath, " has VFIO API version ", version, ", godwit knows ", VFIO_API_VERSION));
  }
  if (kernel.Ioctl(fd, VFIO_CHECK_EXTENSION, uintptr_t{VFIO_TYPE1v2_IOMMU}) <= 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(kContainerPath,
                     " has no TYPE1v2 IOMMU: load its module (modprobe "
                     "vfio_iommu_type1)"));
  }
  return container;
}

absl::StatusOr<UniqueFd> OpenGroup(VfioKernel& kernel, const SysfsDevice& device) {
  const std::string path = absl::StrCat("/dev/vfio/", device.iommu_group);
  GODWIT_ASSIGN_OR_RETURN(
      UniqueFd group,
      OpenVfioFile(kernel, path, "no VFIO driver has a device of this IOMMU group: bind one",
                   "in use by another process, or by another device of the same group"));
  vfio_group_status status = {.argsz = sizeof(status), .flags = 0};
  const int error = -kernel.Ioctl(group.get(), VFIO_GROUP_GET_STATUS, &status);
  if (error > 0) return ErrnoStatus(error, absl::StrCat(path, ": VFIO_GROUP_GET_STATUS"));
  if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("IOMMU group ", device.iommu_group, " is not viable: bind every device in ",
                     device.path, "/iommu_group/devices to a VFIO driver, or to none"));
  }
  if ((status.flags & VFIO_GROUP_FLAGS_CONTAINER_SET) != 0) {
    return absl::UnavailableError(
        absl::StrCat(path, ": in use by another process, or by another device of the same group"));
  }
  return group;
}

absl::Status SetIommu(VfioKernel& kernel, int container, const SysfsDevice& device) {
  const int error = -kernel.Ioctl(container, VFIO_SET_IOMMU, uintptr_t{VFIO_TYPE1v2_IOMMU});
  if (error <= 0) return absl::OkStatus();
  return ErrnoStatus(
      error, absl::StrCat("VFIO_SET_IOMMU for group ", device.iommu_group,
                          error == EPERM ? ": without interrupt remapping the administrator must "
                                           "set vfio_iommu_type1.allow_unsafe_interrupts"
                                         : ""));
}

absl::StatusOr<UniqueFd> OpenDeviceOfGroup(VfioKernel& kernel, int group,
                                           const SysfsDevice& device) {
  std::string name = device.name;
  const int fd = kernel.Ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name.data());
  if (fd >= 0) return UniqueFd(fd);
  if (fd == -EBUSY) return absl::UnavailableError("in use by another process");
  return ErrnoStatus(-fd, absl::StrCat("group ", device.iommu_group, " does not give the device",
                                       fd == -ENODEV ? ": is its VFIO driver bound?" : ""));
}

}  // namespace

absl::StatusOr<VfioHandles> OpenThroughGroup(VfioKernel& kernel, const SysfsDevice& device) {
  VfioHandles handles;
  GODWIT_ASSIGN_OR_RETURN(handles.container, OpenContainer(kernel));
  GODWIT_ASSIGN_OR_RETURN(handles.group, OpenGroup(kernel, device));
  int container = handles.container.get();
  const int error = -kernel.Ioctl(handles.group.get(), VFIO_GROUP_SET_CONTAINER, &container);
  if (error > 0) {
    return ErrnoStatus(error,
                       absl::StrCat("VFIO_GROUP_SET_CONTAINER for group ", device.iommu_group));
  }
  GODWIT_RETURN_IF_ERROR(SetIommu(kernel, container, device));
  GODWIT_ASSIGN_OR_RETURN(handles.device, OpenDeviceOfGroup(kernel, handles.group.get(), device));
  return handles;
}

}  // namespace godwit
