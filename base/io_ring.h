// One io_uring and the dispatch of its completions.
#ifndef GODWIT_BASE_IO_RING_H_
#define GODWIT_BASE_IO_RING_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>
#include <liburing.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/arena.h"

namespace godwit {

// Ownership: owns the ring. An IoRing::Op belongs to its maker and lives until it completes.
// Threads:   single-threaded: only the thread that made the ring may use it.
// Blocking:  only Wait() blocks. No call allocates.
// Errors:    Create() says what the kernel lacks. Operation errors come to Op::OnComplete().
class IoRing {
 public:
  // One kind of operation of one owner; may be in flight several times at once if OnComplete can
  // tell the completions apart (a hard-linked chain completes in order).
  class Op {
   public:
    // `result` is the CQE's: bytes or a negative errno.
    virtual void OnComplete(int result) = 0;

   protected:
    ~Op() = default;
  };

  // `entries` bounds how many operations one Submit() can carry; twice as many may be in flight
  // without the kernel having to queue completions.
  static absl::StatusOr<std::unique_ptr<IoRing>> Create(unsigned entries);
  ~IoRing();
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;

  // Registers the arena as fixed buffer 0, so that READ_FIXED can be used on its buffers. Fails
  // where memlock or the kernel doesn't allow it and for arenas over 1 GiB, the kernel's limit for
  // one fixed buffer; plain reads work all the same.
  absl::Status RegisterArena(const Arena& arena);
  bool arena_registered() const { return arena_registered_; }

  // A zeroed SQE whose completion goes to `op`; submits what is pending if the queue is full. The
  // caller fills it with io_uring_prep_* and then calls Attach (the prep calls clear user_data).
  io_uring_sqe* NextSqe();
  // Room for `count` SQEs in a row without a submission between them: what a linked chain needs.
  // REQUIRES: count <= entries
  void Reserve(unsigned count);
  void Attach(io_uring_sqe* sqe, Op* op);

  // Asks the kernel to cancel every operation attached to `op`. Each still completes.
  void Cancel(Op* op);

  // Submits, waits until at least one operation has completed or `timeout` has passed (negative:
  // for ever; zero: does not wait), and dispatches every completion that is there. Returns how
  // many. Aborts the process only on a kernel error that leaves the ring unusable.
  size_t Wait(std::chrono::nanoseconds timeout);

  size_t in_flight() const { return in_flight_; }

 private:
  IoRing() = default;
  size_t Dispatch();

  io_uring ring_{};
  bool initialised_ = false;
  size_t in_flight_ = 0;
  bool arena_registered_ = false;
};

}  // namespace godwit

#endif  // GODWIT_BASE_IO_RING_H_
