#include "base/io_ring.h"

#include <sys/uio.h>

#include <atomic>
#include <cerrno>

#include "base/check.h"
#include "base/errno_status.h"

namespace godwit {
namespace {

// A completion that nobody waits for: of a cancel request.
constexpr uint64_t kNobody = 0;

// io_uring_register_buffers(2): 1 GiB a buffer.
constexpr size_t kFixedBufferBytesMax = size_t{1} << 30;

// liburing maps and unmaps by bare system calls, which ThreadSanitizer doesn't see: to it a ring
// that gets the address of one that another thread has closed looks shared. Release before a ring
// is unmapped, acquire after one is mapped: what the kernel's own order is, said aloud.
std::atomic<unsigned> rings_closed{0};

}  // namespace

absl::StatusOr<std::unique_ptr<IoRing>> IoRing::Create(unsigned entries) {
  std::unique_ptr<IoRing> ring(new IoRing());
  // COOP_TASKRUN (5.19): completions don't interrupt us. Not DEFER_TASKRUN: with it each read of a
  // linked chain is handed from the kernel's thread to us before it hands back the next one (6.12,
  // io_req_complete_post), a third of all context switches where there is one processor.
  static constexpr unsigned kWantedFlags[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN, IORING_SETUP_COOP_TASKRUN, 0};
  int error = 0;
  for (const unsigned flags : kWantedFlags) {
    io_uring_params params{};
    params.flags = flags;
    error = -io_uring_queue_init_params(entries, &ring->ring_, &params);
    if (error == 0) {
      (void)rings_closed.load(std::memory_order_acquire);
      ring->initialised_ = true;
      return ring;
    }
    if (error != EINVAL) break;
  }
  if (error == EPERM || error == ENOSYS) {
    return absl::FailedPreconditionError(
        "io_uring is switched off on this machine: check sysctl kernel.io_uring_disabled and the "
        "container's seccomp profile");
  }
  return ErrnoStatus(error, "io_uring_queue_init");
}

IoRing::~IoRing() {
  if (!initialised_) return;
  rings_closed.fetch_add(1, std::memory_order_acq_rel);
  io_uring_queue_exit(&ring_);
}

absl::Status IoRing::RegisterArena(const Arena& arena) {
  if (arena.size_bytes() > kFixedBufferBytesMax) {
    return absl::OutOfRangeError("io_uring takes no fixed buffer of more than 1 GiB");
  }
  const iovec whole = {arena.address(), arena.size_bytes()};
  const int result = io_uring_register_buffers(&ring_, &whole, 1);
  if (result < 0) return ErrnoStatus(-result, "io_uring_register_buffers");
  arena_registered_ = true;
  return absl::OkStatus();
}

void IoRing::Reserve(unsigned count) {
  GODWIT_DCHECK(count <= ring_.sq.ring_entries);
  while (io_uring_sq_space_left(&ring_) < count) {
    const int result = io_uring_submit(&ring_);
    // EBUSY: completions wait to be reaped first; Wait() will do it, but we are inside it.
    GODWIT_CHECK(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY);
  }
}

io_uring_sqe* IoRing::NextSqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) {
    Reserve(1);
    sqe = io_uring_get_sqe(&ring_);
  }
  GODWIT_CHECK(sqe != nullptr);
  return sqe;
}

void IoRing::Attach(io_uring_sqe* sqe, Op* op) {
  io_uring_sqe_set_data(sqe, op);
  ++in_flight_;
}

void IoRing::Cancel(Op* op) {
  io_uring_sqe* const sqe = NextSqe();
  io_uring_prep_cancel(sqe, op, IORING_ASYNC_CANCEL_ALL);
  io_uring_sqe_set_data64(sqe, kNobody);
}

size_t IoRing::Wait(std::chrono::nanoseconds timeout) {
  int result = 0;
  if (timeout == std::chrono::nanoseconds::zero()) {
    result = io_uring_submit_and_get_events(&ring_);
  } else if (timeout < std::chrono::nanoseconds::zero()) {
    result = io_uring_submit_and_wait(&ring_, 1);
  } else {
    __kernel_timespec until{};
    until.tv_sec = timeout.count() / 1'000'000'000;
    until.tv_nsec = timeout.count() % 1'000'000'000;
    io_uring_cqe* cqe = nullptr;
    result = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &until, nullptr);
  }
  GODWIT_CHECK(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN ||
               result == -EBUSY);
  return Dispatch();
}

size_t IoRing::Dispatch() {
  size_t dispatched = 0;
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    auto* const op = static_cast<Op*>(io_uring_cqe_get_data(cqe));
    const int result = cqe->res;
    const bool last = (cqe->flags & IORING_CQE_F_MORE) == 0;
    io_uring_cqe_seen(&ring_, cqe);
    if (op == nullptr) continue;
    if (last) --in_flight_;
    op->OnComplete(result);
    ++dispatched;
  }
  return dispatched;
}

}  // namespace godwit
