// A wake-up that works with poll(2) and io_uring.
#ifndef GODWIT_BASE_NOTIFIER_H_
#define GODWIT_BASE_NOTIFIER_H_

#include <absl/status/statusor.h>

#include "godwit/unique_fd.h"

namespace godwit {

// An eventfd: any number of Notify() calls make its fd readable until Clear().
//
// Ownership: owns its fd.
// Threads:   Notify() from any thread; Clear() from the one that waits.
// Blocking:  never.
// Errors:    Create() fails as eventfd(2) does (EMFILE).
class Notifier {
 public:
  static absl::StatusOr<Notifier> Create();

  // What was written before Notify() is visible to who returns from Clear() after it: eventfd's
  // own lock orders the two.
  void Notify() const;
  void Clear() const;
  int fd() const { return fd_.get(); }

 private:
  explicit Notifier(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace godwit

#endif  // GODWIT_BASE_NOTIFIER_H_
