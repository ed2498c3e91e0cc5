// The devices of a command line.
#ifndef GODWIT_TOOLS_DEVICE_LIST_H_
#define GODWIT_TOOLS_DEVICE_LIST_H_

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>

#include <memory>
#include <string>
#include <vector>

#include "base/errno_status.h"
#include "godwit/stream_check.h"
#include "vfio/device_spec.h"

namespace godwit {

struct OpenedDevices {
  std::vector<std::unique_ptr<Device>> owned;
  std::vector<Device*> borrowed;
};

inline std::vector<std::string> DeviceNames(const std::vector<Device*>& devices) {
  std::vector<std::string> names;
  names.reserve(devices.size());
  for (const Device* device : devices) names.emplace_back(device->name());
  return names;
}

// The first that can't be opened ends it: nothing has been touched yet.
inline absl::StatusOr<OpenedDevices> OpenDevices(const std::vector<std::string>& specs,
                                                 DeviceRole role) {
  OpenedDevices devices;
  for (const std::string& spec : specs) {
    auto device = OpenDevice(spec, role);
    if (!device.ok()) return device.status();
    devices.borrowed.push_back(device->get());
    devices.owned.push_back(*std::move(device));
  }
  return devices;
}

// --check: one profile for all devices, one for each, or none at all.
inline absl::StatusOr<StreamCheckFactory> MakeChecks(const std::vector<std::string>& profiles,
                                                     size_t devices) {
  if (profiles.empty()) return StreamCheckFactory();
  if (profiles.size() != 1 && profiles.size() != devices) {
    return absl::InvalidArgumentError(
        absl::StrCat("--check is given ", profiles.size(), " times for ", devices,
                     " devices: give it once, for all, or once for each"));
  }
  for (const std::string& profile : profiles) {
    const auto check = MakeStreamCheck(profile);
    if (!check.ok()) return Annotate(check.status(), "--check");
  }
  return StreamCheckFactory([profiles](size_t device) {
    return MakeStreamCheck(profiles[profiles.size() == 1 ? 0 : device]).value();
  });
}

}  // namespace godwit

#endif  // GODWIT_TOOLS_DEVICE_LIST_H_
