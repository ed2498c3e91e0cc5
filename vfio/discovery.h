// Which devices of this host VFIO has, and which of them can migrate.
#ifndef GODWIT_VFIO_DISCOVERY_H_
#define GODWIT_VFIO_DISCOVERY_H_

#include <optional>
#include <string>
#include <vector>

#include "godwit/device.h"
#include "vfio/features.h"
#include "vfio/sysfs.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

struct VfioDeviceInfo {
  SysfsDevice device;
  std::string spec;  // as OpenDevice() takes it

  // Both, or neither and the reason.
  std::optional<MigrationFlags> flags;
  std::optional<DeviceState> state;
  VfioFeatures features;  // beside the flags; none where those are missing
  std::string reason;     // why it can't migrate or could not be asked: "in use", …
};

// PCI functions bound to a VFIO driver and all mediated devices, by name. Each that nobody has
// open is opened for a moment to be asked; its state is not changed by us, but drivers may reset a
// device at open or close.
std::vector<VfioDeviceInfo> ListVfioDevices();
std::vector<VfioDeviceInfo> ListVfioDevices(VfioKernel& kernel, const std::string& sysfs_root);

}  // namespace godwit

#endif  // GODWIT_VFIO_DISCOVERY_H_
