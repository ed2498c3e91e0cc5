#include "vfio/discovery.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "vfio/open_via.h"

namespace godwit {
namespace {

namespace fs = std::filesystem;

// Sorted by name; none if the bus does not exist on this host.
std::vector<SysfsDevice> DevicesOnBus(const std::string& sysfs_root, absl::string_view bus) {
  std::vector<SysfsDevice> devices;
  std::error_code error;
  const fs::path directory(absl::StrCat(sysfs_root, "/bus/", bus, "/devices"));
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    SysfsDevice device = ReadSysfsDevice(entry->path().string());
    if (device.has_vfio_driver) devices.push_back(std::move(device));
  }
  std::sort(devices.begin(), devices.end(),
            [](const SysfsDevice& a, const SysfsDevice& b) { return a.name < b.name; });
  return devices;
}

absl::Status Probe(VfioKernel& kernel, VfioDeviceInfo& info) {
  const absl::StatusOr<VfioHandles> handles = OpenVia(kernel, info.device, VfioVia::kAuto);
  if (!handles.ok()) return handles.status();
  const absl::StatusOr<MigrationFlags> flags = ProbeMigration(kernel, handles->device.get());
  if (!flags.ok()) return flags.status();
  const absl::StatusOr<DeviceState> state = GetDeviceState(kernel, handles->device.get());
  if (!state.ok()) return state.status();
  info.flags = *flags;
  info.state = *state;
  info.features = ProbeFeatures(kernel, handles->device.get());
  return absl::OkStatus();
}

std::string Reason(const absl::Status& status) {
  if (absl::IsUnavailable(status)) return "in use";
  return std::string(status.message());
}

}  // namespace

std::vector<VfioDeviceInfo> ListVfioDevices() {
  return ListVfioDevices(VfioKernel::Real(), kSysfsRoot);
}

std::vector<VfioDeviceInfo> ListVfioDevices(VfioKernel& kernel, const std::string& sysfs_root) {
  std::vector<VfioDeviceInfo> list;
  for (const absl::string_view bus : {"pci", "mdev"}) {
    for (SysfsDevice& device : DevicesOnBus(sysfs_root, bus)) {
      VfioDeviceInfo info;
      info.spec = absl::StrCat("vfio:", bus == "pci" ? device.name : device.path);
      info.device = std::move(device);
      const absl::Status status = Probe(kernel, info);
      if (!status.ok()) info.reason = Reason(status);
      list.push_back(std::move(info));
    }
  }
  return list;
}

}  // namespace godwit
