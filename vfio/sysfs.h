// What sysfs says about a device that VFIO may give us.
#ifndef GODWIT_VFIO_SYSFS_H_
#define GODWIT_VFIO_SYSFS_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

namespace godwit {

inline constexpr char kSysfsRoot[] = "/sys";

struct SysfsDevice {
  std::string name;         // "0000:01:00.1" or a UUID: what VFIO calls it
  std::string path;         // of its directory
  std::string driver;       // empty if none is bound
  std::string iommu_group;  // a number; empty if it is in none

  // "/dev/vfio/devices/vfio0"; empty if the kernel gives devices no file of their own (the file
  // may still be missing: kernels from 6.1 on name it, but make it only with
  // CONFIG_VFIO_DEVICE_CDEV).
  std::string cdev;

  // A driver bound to the device that hands it to VFIO.
  bool has_vfio_driver = false;
};

// Reads the directory's links. Missing ones leave their field empty.
SysfsDevice ReadSysfsDevice(const std::string& path);

// `text` is a PCI address (0000:01:00.1) or the path of a device's directory. InvalidArgument if
// it is neither, NotFound if there is no such device, FailedPrecondition if VFIO can't open it as
// it is: no VFIO driver bound, neither an IOMMU group nor a file of its own.
absl::StatusOr<SysfsDevice> FindVfioDevice(absl::string_view text, const std::string& sysfs_root);

}  // namespace godwit

#endif  // GODWIT_VFIO_SYSFS_H_
