// The saving end of a software device that behaves like a driver: segments, errors and "nothing
// now" as a driver's data_fd has them, on a real fd.
//
// A pipe can do none of that; a socket can, without a seam in the code that reads:
//
//   a read ends at byte N   the message that ends there carries an fd (SCM_RIGHTS): a stream socket
//                           ends a read after such a message. read(2) drops the fd.
//   an error after byte N   our end is closed with a byte unread: the reader gets what is in the
//                           queue, then ECONNRESET once, then 0. Drivers say EIO, EINVAL or ENODEV.
//   the end                 SHUT_WR: 0 from then on. Of messages, when all have been read.
//   EAGAIN for ENOMSG       O_NONBLOCK on the reader's end while in PRE_COPY
//   0 for "nothing now"     an empty message; only SOCK_SEQPACKET has those. There a read that is
//                           shorter than its message loses the rest: in sessions that begin in
//                           PRE_COPY, read 4096 bytes at least at once.
#ifndef GODWIT_VFIO_SOFT_SAVE_SOCKET_H_
#define GODWIT_VFIO_SOFT_SAVE_SOCKET_H_

#include <absl/status/statusor.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/notifier.h"
#include "godwit/unique_fd.h"
#include "vfio/soft_framing.h"

namespace godwit {

// One saving session.
//
// Ownership: borrows the image; owns our end of the socket and the thread that fills it.
// Threads:   one at a time; the reader's end is free to any.
// Blocking:  never for longer than one message, but for WaitForReaderGone().
// Errors:    Open() fails as socketpair(2) does. Destroyed before the end, or before the last
// message
//            was read, the reader sees what was in the queue and then ECONNRESET.
class SoftSaveSocket {
 public:
  static constexpr size_t kExtentsMax = 1024;

  struct Options {
    SoftNothingNow nothing_now = SoftNothingNow::kBlocks;  // until Finish()
    uint64_t first_read_bytes = 0;                         // 0: as the others
    uint64_t read_bytes = 0;                               // 0: as much as there is
    std::optional<uint64_t> truncate_at = std::nullopt;
    std::optional<uint64_t> fail_at = std::nullopt;
    std::optional<uint64_t> lost_at = std::nullopt;
  };

  static absl::StatusOr<std::unique_ptr<SoftSaveSocket>> Open(const SoftImage& image,
                                                              const Options& options,
                                                              UniqueFd& data_fd);
  ~SoftSaveSocket();
  SoftSaveSocket(const SoftSaveSocket&) = delete;
  SoftSaveSocket& operator=(const SoftSaveSocket&) = delete;

  // False if kExtentsMax are waiting.
  bool Put(const SoftExtent& extent);
  // What was put is all: from here on 0 is the end.
  void Finish();

  // Put, and not yet with the socket; framing not counted.
  uint64_t pending_bytes();
  // The stream has come to lost_at.
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  // Ends the thread and waits until the reader has closed its fd; false if it has not in time.
  bool WaitForReaderGone(std::chrono::milliseconds timeout);

 private:
  enum class Step { kGoOn, kWait, kDone };

  SoftSaveSocket(const SoftImage& image, const Options& options, Notifier wake, UniqueFd socket);
  void Run();
  void Stop();
  Step Advance();
  bool TakeExtent();
  Step SendIdle();
  Step SendSegment();
  Step EndAt();
  Step End();
  bool AllMessagesAreRead() const;
  ssize_t Send(absl::string_view bytes, bool ends_read);
  void Sleep(bool for_socket);

  const SoftImage& image_;
  const Options options_;
  const bool messages_;    // SOCK_SEQPACKET
  const uint64_t end_at_;  // the first of truncate_at, fail_at and lost_at
  Notifier wake_;
  std::atomic<bool> stop_{false};  // relaxed: wake_ orders it
  std::atomic<bool> lost_{false};

  Mutex mutex_;
  std::deque<SoftExtent> extents_ ABSL_GUARDED_BY(mutex_);
  uint64_t record_left_ ABSL_GUARDED_BY(mutex_) = 0;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  UniqueFd readers_end_ ABSL_GUARDED_BY(mutex_);  // in PRE_COPY

  // The thread's while it runs.
  UniqueFd socket_;
  std::string record_;
  size_t record_at_ = 0;
  uint64_t stream_bytes_ = 0;
  uint64_t read_ends_at_ = 0;
  int end_polls_ = 0;  // all has been sent; how often some of it was still unread

  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_SAVE_SOCKET_H_
