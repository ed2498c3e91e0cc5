// The two ends of a software device's data_fd: a thread that writes the content into a pipe, and
// one that reads a pipe and checks it.
#ifndef GODWIT_VFIO_SOFT_STREAM_H_
#define GODWIT_VFIO_SOFT_STREAM_H_

#include <absl/status/statusor.h>

#include <memory>
#include <thread>

#include "base/notifier.h"
#include "godwit/unique_fd.h"
#include "vfio/soft_content.h"

namespace godwit {

// One saving session: the content, then end of file.
//
// Ownership: borrows the content; owns the pipe's write end and the thread that fills it.
// Threads:   one at a time; the read end is free to any.
// Blocking:  never for longer than one write into the pipe, whatever the reader does.
// Errors:    Open() fails as pipe2(2) does. Destroyed before the end, the reader sees what was in
//            the pipe and then end of file: it must know that the session was stopped.
class SoftSaveStream {
 public:
  // Puts the end to read from into `data_fd`. Nothing can be read before Start().
  static absl::StatusOr<std::unique_ptr<SoftSaveStream>> Open(const SoftContent& content,
                                                              uint64_t size_bytes,
                                                              UniqueFd& data_fd);
  ~SoftSaveStream();
  SoftSaveStream(const SoftSaveStream&) = delete;
  SoftSaveStream& operator=(const SoftSaveStream&) = delete;

  // At most once.
  void Start();

 private:
  SoftSaveStream(const SoftContent& content, uint64_t size_bytes, Notifier stop, UniqueFd pipe);
  void Generate();

  const SoftContent& content_;
  const uint64_t size_bytes_;
  Notifier stop_;
  UniqueFd pipe_;  // the thread's once it runs
  std::thread thread_;
};

// One resuming session: reads all that is written, also past the first wrong byte, as a device
// that validates only at the end does.
//
// Ownership: borrows the content; owns the pipe's read end and the thread that empties it.
// Threads:   one at a time; the write end is free to any, but for Finish(), before which every
//            write has returned.
// Blocking:  Finish() until what is in the pipe is checked; the destructor not even that.
// Errors:    Open() fails as pipe2(2) does. Destruction makes later writes fail with EPIPE, and
//            SIGPIPE where the writer has not blocked it.
class SoftLoadStream {
 public:
  static absl::StatusOr<std::unique_ptr<SoftLoadStream>> Open(const SoftContent& content,
                                                              uint64_t size_bytes,
                                                              UniqueFd& data_fd);
  ~SoftLoadStream();
  SoftLoadStream(const SoftLoadStream&) = delete;
  SoftLoadStream& operator=(const SoftLoadStream&) = delete;

  // Takes what is in the pipe and says whether the whole stream was right: FailedPrecondition
  // with the first wrong offset, or with the bytes that are missing or too many. The verdict
  // stays; nothing is read from the pipe after the first call.
  absl::Status Finish();

 private:
  SoftLoadStream(const SoftContent& content, uint64_t size_bytes, Notifier stop, Notifier finish,
                 UniqueFd pipe);
  enum class PipeState { kMore, kEmpty, kEnd };

  void Check();
  // One read per look at the notifiers: a writer that never stops can't keep the thread.
  PipeState ReadOnce();
  void Take(absl::Span<const std::byte> bytes);

  const SoftContent& content_;
  const uint64_t size_bytes_;
  Notifier stop_;
  Notifier finish_;
  UniqueFd pipe_;

  // The thread's until it is joined.
  std::vector<std::byte> buffer_;
  uint64_t got_bytes_ = 0;
  uint64_t right_bytes_ = 0;  // length of the right prefix

  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_SOFT_STREAM_H_
