// Preloaded into a program, makes it wait for its io_urings in poll(2). Valgrind 3.19 takes
// io_uring_enter(2) for a call that never blocks: a thread that waits in it keeps valgrind's one
// lock, and no other thread runs any more.
#include <liburing.h>
#include <poll.h>

#include <cerrno>
#include <ctime>

namespace {

// Until there are so many completions; -ETIME if that takes longer than `until`, null for ever.
int SubmitAndPoll(io_uring* ring, unsigned count, const timespec* until) {
  int submitted = 0;
  while (true) {
    const int result = io_uring_submit_and_get_events(ring);
    if (result < 0) return result;
    submitted += result;
    if (io_uring_cq_ready(ring) >= count) return submitted;
    pollfd readable = {ring->ring_fd, POLLIN, 0};
    const int ready = ::ppoll(&readable, 1, until, nullptr);
    if (ready < 0) return -errno;
    if (ready == 0) return -ETIME;
  }
}

}  // namespace

extern "C" {

int io_uring_submit_and_wait(io_uring* ring, unsigned wait_nr) {
  return SubmitAndPoll(ring, wait_nr, nullptr);
}

int io_uring_submit_and_wait_timeout(io_uring* ring, io_uring_cqe** cqe_ptr, unsigned wait_nr,
                                     __kernel_timespec* ts, sigset_t* /*signals*/) {
  const timespec time = {static_cast<time_t>(ts->tv_sec), static_cast<long>(ts->tv_nsec)};
  const int result = SubmitAndPoll(ring, wait_nr, &time);
  *cqe_ptr = nullptr;
  if (result >= 0) (void)io_uring_peek_cqe(ring, cqe_ptr);
  return result;
}

}  // extern "C"
