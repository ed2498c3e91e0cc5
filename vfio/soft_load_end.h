// The loading end of a software device that behaves like a driver.
//
// Two kinds, after what drivers do with a write:
//
//   they copy it and look at it at →STOP   a memfd whose size is sealed: a write that would go past
//                                          the end takes the pages that fit, or nothing, and says
//                                          EPERM (drivers: ENOMEM, EINVAL); so does each one after
//   they load it at once                   a socket and a thread that decodes what comes: after the
//                                          first byte that it refuses its end is closed, and each
//                                          write says EPIPE (drivers: EINVAL, ENODEV). Writes that
//                                          were in the socket by then have "succeeded", so the
//                                          verdict is also RESUMING → STOP's
#ifndef GODWIT_VFIO_SOFT_LOAD_END_H_
#define GODWIT_VFIO_SOFT_LOAD_END_H_

#include <absl/status/statusor.h>

#include <memory>
#include <optional>

#include "godwit/unique_fd.h"
#include "vfio/soft_framing.h"

namespace godwit {

// One resuming session.
//
// Ownership: borrows the image; owns the end that is read, and the thread where there is one.
// Threads:   one at a time; the writer's end is free to any, but for Finish(), before which every
//            write has returned.
// Blocking:  Finish() until what has been written is checked.
// Errors:    Open() fails as socketpair(2) or memfd_create(2) does. Destruction makes later writes
//            fail: with EPERM, or with EPIPE and, where the writer has not blocked it, SIGPIPE.
class SoftLoadEnd {
 public:
  struct Options {
    std::optional<uint64_t> fail_at = std::nullopt;
    std::optional<uint64_t> lost_at = std::nullopt;
  };

  static absl::StatusOr<std::unique_ptr<SoftLoadEnd>> Open(const SoftImage& image,
                                                           const Options& options,
                                                           UniqueFd& data_fd);
  virtual ~SoftLoadEnd() = default;

  // The verdict on all that was written; the same at each call.
  virtual absl::Status Finish() = 0;
  // All of the image was there. REQUIRES: Finish() was OK.
  virtual bool complete() const = 0;
  // The stream has come to lost_at.
  virtual bool lost() const = 0;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_LOAD_END_H_
