#include "vfio/vfio_handles.h"

#include <absl/strings/str_cat.h>

#include <cerrno>

#include "base/errno_status.h"

namespace godwit {

absl::StatusOr<UniqueFd> OpenVfioFile(VfioKernel& kernel, const std::string& path,
                                      absl::string_view missing, absl::string_view busy) {
  const int fd = kernel.Open(path);
  if (fd >= 0) return UniqueFd(fd);
  switch (-fd) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return ErrnoStatus(ENOENT, absl::StrCat(path, ": ", missing));
    case EBUSY:
      return absl::UnavailableError(absl::StrCat(path, ": ", busy));
    case EACCES:
    case EPERM:
      return ErrnoStatus(-fd, absl::StrCat(path,
                                           ": run as root, or give this user read and write "
                                           "access to it"));
    case EMFILE:
    case ENFILE:
      return ErrnoStatus(-fd, absl::StrCat(path, ": no fd left: raise the limit (ulimit -n)"));
    default:
      return ErrnoStatus(-fd, path);
  }
}

}  // namespace godwit
