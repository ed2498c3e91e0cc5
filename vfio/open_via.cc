#include "vfio/open_via.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "vfio/cdev.h"
#include "vfio/group.h"

namespace godwit {

absl::StatusOr<VfioSpec> ParseVfioSpec(absl::string_view text) {
  const size_t comma = text.find(',');
  VfioSpec spec = {.device = std::string(text.substr(0, comma)), .via = VfioVia::kAuto};
  if (comma == absl::string_view::npos) return spec;
  const absl::string_view option = text.substr(comma + 1);
  if (option == "via=group") {
    spec.via = VfioVia::kGroup;
  } else if (option == "via=cdev") {
    spec.via = VfioVia::kCdev;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("'", option, "' is neither via=group nor via=cdev"));
  }
  return spec;
}

absl::StatusOr<VfioHandles> OpenVia(VfioKernel& kernel, const SysfsDevice& device, VfioVia via) {
  if (via == VfioVia::kCdev) return OpenThroughCdev(kernel, device);
  if (via == VfioVia::kAuto && !device.cdev.empty()) {
    absl::StatusOr<VfioHandles> handles = OpenThroughCdev(kernel, device);
    // Only what is not there sends us the older way: a file without rights or in use is an error
    // that the older way would only blur.
    if (absl::IsPermissionDenied(handles.status()) && !device.iommu_group.empty()) {
      return absl::PermissionDeniedError(
          absl::StrCat(handles.status().message(), " (via=group takes the older way)"));
    }
    if (handles.ok() || !absl::IsNotFound(handles.status()) || device.iommu_group.empty()) {
      return handles;
    }
  }
  if (device.iommu_group.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(device.name, " is in no IOMMU group: is the IOMMU on?"));
  }
  return OpenThroughGroup(kernel, device);
}

}  // namespace godwit
