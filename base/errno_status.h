// errno → Status, the code chosen by what the caller should do next.
#ifndef GODWIT_BASE_ERRNO_STATUS_H_
#define GODWIT_BASE_ERRNO_STATUS_H_

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

#include <cerrno>

namespace godwit {

// "what: No such file or directory [ENOENT]"-like message, code as Abseil maps errno, which
// follows the rule of Status codes: EAGAIN and friends → Unavailable (try again), ENOENT →
// NotFound, EACCES and EPERM → PermissionDenied, EINVAL → InvalidArgument, ENOMEM, EMFILE →
// ResourceExhausted.
inline absl::Status ErrnoStatus(int error, absl::string_view what) {
  return absl::ErrnoToStatus(error, what);
}

// The same status with `where` put before its message.
inline absl::Status Annotate(const absl::Status& status, absl::string_view where) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
}

}  // namespace godwit

#endif  // GODWIT_BASE_ERRNO_STATUS_H_
