// Lets an fd that others make readable end the worker's wait.
#ifndef GODWIT_ENGINE_FD_WATCH_H_
#define GODWIT_ENGINE_FD_WATCH_H_

#include <poll.h>

#include "base/check.h"
#include "base/io_ring.h"

namespace godwit {

// Ownership: borrows the fd and the ring. REQUIRES: !armed() when destroyed.
// Threads:   single-threaded, the ring's thread.
// Blocking:  never.
// Errors:    none: an fd that can't be polled just completes at once.
class FdWatch final : public IoRing::Op {
 public:
  FdWatch(int fd, IoRing& ring) : fd_(fd), ring_(ring) {}
  ~FdWatch() { GODWIT_CHECK(!armed_); }
  FdWatch(const FdWatch&) = delete;
  FdWatch& operator=(const FdWatch&) = delete;

  // Idempotent. The next time that the fd is readable ends a Wait() of the ring.
  void Arm() {
    if (armed_) return;
    io_uring_sqe* const sqe = ring_.NextSqe();
    io_uring_prep_poll_add(sqe, fd_, POLLIN);
    ring_.Attach(sqe, this);
    armed_ = true;
  }
  void Cancel() {
    if (armed_) ring_.Cancel(this);
  }
  bool armed() const { return armed_; }

 private:
  void OnComplete(int /*result*/) override { armed_ = false; }

  const int fd_;
  IoRing& ring_;
  bool armed_ = false;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_FD_WATCH_H_
