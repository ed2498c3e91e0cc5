// errno → Status, the code chosen by what the caller should do next.
#ifndef GODWIT_BASE_ERRNO_STATUS_H_
#define GODWIT_BASE_ERRNO_STATUS_H_

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

#include <cerrno>
#include <cstring>

namespace godwit {

// "what: No such file or directory", code as Abseil maps errno, which
// follows the rule of Status codes: EAGAIN and friends → Unavailable (try again), ENOENT →
// NotFound, EACCES and EPERM → PermissionDenied, EINVAL → InvalidArgument, ENOMEM, EMFILE →
// ResourceExhausted.
inline absl::Status ErrnoStatus(int error, absl::string_view what) {
  // glibc's constant text: absl::ErrnoToStatus() copies it from a lazily made table, whose
  // initialisation in a shared library ThreadSanitizer takes for a race.
  const char* const text = ::strerrordesc_np(error);
  return absl::Status(absl::ErrnoToStatusCode(error), text != nullptr
                                                          ? absl::StrCat(what, ": ", text)
                                                          : absl::StrCat(what, ": error ", error));
}

// The same status with `where` put before its message.
inline absl::Status Annotate(const absl::Status& status, absl::string_view where) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
}

}  // namespace godwit

#endif  // GODWIT_BASE_ERRNO_STATUS_H_
