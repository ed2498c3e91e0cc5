// The options of a software device as the user writes them: KEY=VALUE,KEY=VALUE,…; the list is in
// docs/soft-device.md.
#ifndef GODWIT_VFIO_SOFT_OPTIONS_H_
#define GODWIT_VFIO_SOFT_OPTIONS_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <string>

#include "godwit/device.h"
#include "vfio/soft_device.h"

namespace godwit {

// The part of a SPEC after "soft:". InvalidArgument that names key and value and what is allowed;
// it lacks the spec's name.
absl::StatusOr<SoftDeviceOptions> ParseSoftOptions(absl::string_view text);

// A SoftDevice if it can be all that `options` say, else a SoftProfileDevice.
// REQUIRES: `options` came from ParseSoftOptions()
std::unique_ptr<Device> MakeSoftDevice(std::string name, const SoftDeviceOptions& options);

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_OPTIONS_H_
