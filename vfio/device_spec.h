// A device as the user names it on the command line.
#ifndef GODWIT_VFIO_DEVICE_SPEC_H_
#define GODWIT_VFIO_DEVICE_SPEC_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>

#include "godwit/device.h"
#include "vfio/device_role.h"

namespace godwit {

// The forms of a SPEC, for --help: one a line.
absl::string_view DeviceSpecHelp();

// vfio:/sys/bus/mdev/devices/UUID, vfio:0000:01:00.1, soft:size=1GiB,seed=7 or file:PATH.
// InvalidArgument naming the spec, what is wrong and what is allowed if it is none of these; else
// the errors of opening the device.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(absl::string_view spec, DeviceRole role);

}  // namespace godwit

#endif  // GODWIT_VFIO_DEVICE_SPEC_H_
