#include "vfio/soft_stream.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace godwit {
namespace {

constexpr size_t kPipeBytes = kMiB;
// Of one write or read of ours: stays in a core's cache between the content and the pipe's copy,
// which costs a fifth less CPU than a whole pipe at once. Reads at the far end still get what the
// pipe holds, up to all of it.
constexpr size_t kChunkBytes = kMiB / 4;

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> fds;
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  Pipe pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
  // Refused to who has too many pipe pages already: a smaller pipe is only slower.
  static_cast<void>(::fcntl(pipe.write.get(), F_SETPIPE_SZ, static_cast<int>(kPipeBytes)));
  return pipe;
}

// O_NONBLOCK is of the one end only: the other, which the caller gets, blocks as a device's does.
absl::Status SetNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
    return ErrnoStatus(errno, "fcntl(O_NONBLOCK) of a pipe");
  }
  return absl::OkStatus();
}

// A pipe whose reader is gone must not kill the process.
void BlockSigpipe() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

bool IsSet(const pollfd& entry) { return entry.revents != 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<SoftSaveStream>> SoftSaveStream::Open(const SoftContent& content,
                                                                     uint64_t size_bytes,
                                                                     UniqueFd& data_fd) {
  GODWIT_ASSIGN_OR_RETURN(Notifier stop, Notifier::Create());
  GODWIT_ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  GODWIT_RETURN_IF_ERROR(SetNonBlocking(pipe.write.get()));
  data_fd = std::move(pipe.read);
  return std::unique_ptr<SoftSaveStream>(
      new SoftSaveStream(content, size_bytes, std::move(stop), std::move(pipe.write)));
}

SoftSaveStream::SoftSaveStream(const SoftContent& content, uint64_t size_bytes, Notifier stop,
                               UniqueFd pipe)
    : content_(content), size_bytes_(size_bytes), stop_(std::move(stop)), pipe_(std::move(pipe)) {}

SoftSaveStream::~SoftSaveStream() {
  stop_.Notify();
  if (thread_.joinable()) thread_.join();
}

void SoftSaveStream::Start() {
  thread_ = std::thread([this] { Generate(); });
}

void SoftSaveStream::Generate() {
  BlockSigpipe();
  const UniqueFd pipe = std::move(pipe_);  // closed at the end of this function: end of file
  std::vector<std::byte> chunk(std::min<uint64_t>(kChunkBytes, size_bytes_));
  absl::Span<const std::byte> left;
  for (uint64_t offset = 0; offset < size_bytes_ || !left.empty();) {
    if (left.empty()) {
      const size_t bytes = std::min<uint64_t>(chunk.size(), size_bytes_ - offset);
      content_.Fill(offset, absl::MakeSpan(chunk).first(bytes));
      left = absl::MakeConstSpan(chunk).first(bytes);
      offset += bytes;
    }
    std::array<pollfd, 2> events = {{{pipe.get(), POLLOUT, 0}, {stop_.fd(), POLLIN, 0}}};
    if (::poll(events.data(), events.size(), -1) < 0) continue;  // EINTR
    if (IsSet(events[1])) return;
    const ssize_t written = ::write(pipe.get(), left.data(), left.size());
    if (written > 0) left.remove_prefix(static_cast<size_t>(written));
    if (written < 0 && errno != EAGAIN && errno != EINTR) return;  // EPIPE: nobody reads
  }
}

absl::StatusOr<std::unique_ptr<SoftLoadStream>> SoftLoadStream::Open(const SoftContent& content,
                                                                     uint64_t size_bytes,
                                                                     UniqueFd& data_fd) {
  GODWIT_ASSIGN_OR_RETURN(Notifier stop, Notifier::Create());
  GODWIT_ASSIGN_OR_RETURN(Notifier finish, Notifier::Create());
  GODWIT_ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  GODWIT_RETURN_IF_ERROR(SetNonBlocking(pipe.read.get()));
  data_fd = std::move(pipe.write);
  std::unique_ptr<SoftLoadStream> stream(new SoftLoadStream(
      content, size_bytes, std::move(stop), std::move(finish), std::move(pipe.read)));
  stream->thread_ = std::thread([&stream = *stream] { stream.Check(); });
  return stream;
}

SoftLoadStream::SoftLoadStream(const SoftContent& content, uint64_t size_bytes, Notifier stop,
                               Notifier finish, UniqueFd pipe)
    : content_(content),
      size_bytes_(size_bytes),
      stop_(std::move(stop)),
      finish_(std::move(finish)),
      pipe_(std::move(pipe)),
      buffer_(kChunkBytes) {}

SoftLoadStream::~SoftLoadStream() {
  stop_.Notify();
  if (thread_.joinable()) thread_.join();
}

void SoftLoadStream::Check() {
  PipeState state = PipeState::kMore;
  while (true) {
    // At end of file a pipe is readable for ever; poll(2) skips an fd of -1.
    const int readable = state == PipeState::kEnd ? -1 : pipe_.get();
    std::array<pollfd, 3> events = {
        {{readable, POLLIN, 0}, {stop_.fd(), POLLIN, 0}, {finish_.fd(), POLLIN, 0}}};
    if (::poll(events.data(), events.size(), -1) < 0) continue;  // EINTR
    if (IsSet(events[1])) return;
    if (IsSet(events[0])) state = ReadOnce();
    // All is written by now, so the first time that the pipe is empty is the end.
    while (IsSet(events[2]) && state == PipeState::kMore) state = ReadOnce();
    if (IsSet(events[2])) return;
    if (state == PipeState::kEmpty) state = PipeState::kMore;
  }
}

SoftLoadStream::PipeState SoftLoadStream::ReadOnce() {
  const ssize_t got = ::read(pipe_.get(), buffer_.data(), buffer_.size());
  if (got > 0) Take(absl::MakeConstSpan(buffer_).first(static_cast<size_t>(got)));
  if (got > 0 || (got < 0 && errno == EINTR)) return PipeState::kMore;
  return got == 0 ? PipeState::kEnd : PipeState::kEmpty;
}

void SoftLoadStream::Take(absl::Span<const std::byte> bytes) {
  if (right_bytes_ == got_bytes_ && got_bytes_ < size_bytes_) {
    const uint64_t wanted = std::min<uint64_t>(bytes.size(), size_bytes_ - got_bytes_);
    right_bytes_ += content_.FirstMismatch(got_bytes_, bytes.first(wanted));
  }
  got_bytes_ += bytes.size();
}

absl::Status SoftLoadStream::Finish() {
  finish_.Notify();
  if (thread_.joinable()) thread_.join();
  if (right_bytes_ < std::min(got_bytes_, size_bytes_)) {
    return absl::FailedPreconditionError(absl::StrCat("the stream's content is wrong from byte ",
                                                      right_bytes_, " on (got ", got_bytes_, " of ",
                                                      size_bytes_, " bytes)"));
  }
  if (got_bytes_ != size_bytes_) {
    return absl::FailedPreconditionError(absl::StrCat("the stream has the wrong length: got ",
                                                      got_bytes_, " of ", size_bytes_, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace godwit
