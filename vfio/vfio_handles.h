// What keeps a VFIO device open, and how its files are opened.
#ifndef GODWIT_VFIO_VFIO_HANDLES_H_
#define GODWIT_VFIO_VFIO_HANDLES_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "godwit/unique_fd.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Closed from the last member up: the device goes first, as the kernel wants it.
struct VfioHandles {
  UniqueFd container;  // or the iommufd
  UniqueFd group;      // none with a cdev
  UniqueFd device;
};

// Errors name the file and say what to do: `missing` if it is not there (NotFound), `busy` if
// someone else has it (Unavailable), which rights are needed (PermissionDenied).
absl::StatusOr<UniqueFd> OpenVfioFile(VfioKernel& kernel, const std::string& path,
                                      absl::string_view missing, absl::string_view busy);

}  // namespace godwit

#endif  // GODWIT_VFIO_VFIO_HANDLES_H_
