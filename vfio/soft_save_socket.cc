#include "vfio/soft_save_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace godwit {
namespace {

constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();
// A message up to this long is one buffer in the kernel, so that the fd that it carries ends a
// read just behind its last byte.
constexpr uint64_t kOneBufferBytes = 4096;
// How often an empty message is offered, and how soon an emptied queue is seen.
constexpr timespec kIdlePoll = {0, 1'000'000};
// The same at the end of a stream, where a session waits for it: that often, so many times.
constexpr timespec kEndPoll = {0, 50'000};
constexpr int kEndPolls = 400;

uint64_t EndOf(const SoftSaveSocket::Options& options) {
  return std::min({options.truncate_at.value_or(kNever), options.fail_at.value_or(kNever),
                   options.lost_at.value_or(kNever)});
}

void SetNonBlocking(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0) ::fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

// An empty message that nobody has read would be taken for the end once there is an end. The
// writer has stopped, so what is in front now is all that there is.
void DropEmptyMessages(int readers_end) {
  char byte;
  while (::recv(readers_end, &byte, 1, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT) == 0) {
    if (::recv(readers_end, &byte, 1, MSG_DONTWAIT) < 0) return;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<SoftSaveSocket>> SoftSaveSocket::Open(const SoftImage& image,
                                                                     const Options& options,
                                                                     UniqueFd& data_fd) {
  GODWIT_ASSIGN_OR_RETURN(Notifier wake, Notifier::Create());
  const bool messages = options.nothing_now == SoftNothingNow::kZero;
  std::array<int, 2> fds;
  const int type = (messages ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC;
  if (::socketpair(AF_UNIX, type, 0, fds.data()) != 0) return ErrnoStatus(errno, "socketpair");
  UniqueFd ours(fds[0]);
  UniqueFd readers(fds[1]);
  // Never read by us: what makes the reader see ECONNRESET when our end closes.
  if (::send(readers.get(), "x", 1, MSG_NOSIGNAL) != 1) return ErrnoStatus(errno, "socketpair");
  std::unique_ptr<SoftSaveSocket> opened(
      new SoftSaveSocket(image, options, std::move(wake), std::move(ours)));
  if (options.nothing_now != SoftNothingNow::kBlocks) {
    MutexLock lock(opened->mutex_);
    opened->readers_end_ = UniqueFd(::fcntl(readers.get(), F_DUPFD_CLOEXEC, 0));
    if (!opened->readers_end_.valid()) return ErrnoStatus(errno, "dup of a socket");
    if (!messages) SetNonBlocking(readers.get(), true);
  }
  opened->thread_ = std::thread([&stream = *opened] { stream.Run(); });
  data_fd = std::move(readers);
  return opened;
}

SoftSaveSocket::SoftSaveSocket(const SoftImage& image, const Options& options, Notifier wake,
                               UniqueFd socket)
    : image_(image),
      options_(options),
      messages_(options.nothing_now == SoftNothingNow::kZero),
      end_at_(EndOf(options)),
      wake_(std::move(wake)),
      socket_(std::move(socket)),
      read_ends_at_(options.first_read_bytes > 0 ? options.first_read_bytes
                    : options.read_bytes > 0     ? options.read_bytes
                                                 : kNever) {}

SoftSaveSocket::~SoftSaveSocket() { Stop(); }

void SoftSaveSocket::Stop() {
  stop_.store(true, std::memory_order_relaxed);
  wake_.Notify();
  if (thread_.joinable()) thread_.join();
}

bool SoftSaveSocket::Put(const SoftExtent& extent) {
  {
    MutexLock lock(mutex_);
    if (extents_.size() == kExtentsMax) return false;
    extents_.push_back(extent);
  }
  wake_.Notify();
  return true;
}

void SoftSaveSocket::Finish() {
  {
    MutexLock lock(mutex_);
    finished_ = true;
    if (readers_end_.valid()) {
      if (messages_) DropEmptyMessages(readers_end_.get());
      if (!messages_) SetNonBlocking(readers_end_.get(), false);
      readers_end_.Reset();
    }
  }
  wake_.Notify();
}

uint64_t SoftSaveSocket::pending_bytes() {
  MutexLock lock(mutex_);
  uint64_t bytes = record_left_;
  for (const SoftExtent& extent : extents_) bytes += extent.bytes;
  return bytes;
}

bool SoftSaveSocket::WaitForReaderGone(std::chrono::milliseconds timeout) {
  Stop();
  if (!socket_.valid()) return true;
  pollfd gone = {socket_.get(), 0, 0};
  return ::poll(&gone, 1, static_cast<int>(timeout.count())) > 0 && (gone.revents & POLLHUP) != 0;
}

void SoftSaveSocket::Run() {
  while (!stop_.load(std::memory_order_relaxed)) {
    const Step step = Advance();
    if (step == Step::kDone) return;
    if (step == Step::kWait) Sleep(stream_bytes_ != end_at_ && record_at_ < record_.size());
  }
}

SoftSaveSocket::Step SoftSaveSocket::Advance() {
  if (stream_bytes_ == end_at_) return EndAt();
  if (record_at_ < record_.size()) return SendSegment();
  return TakeExtent() ? Step::kGoOn : SendIdle();
}

bool SoftSaveSocket::TakeExtent() {
  SoftExtent extent;
  {
    MutexLock lock(mutex_);
    record_left_ = 0;
    if (extents_.empty()) return false;
    extent = extents_.front();
    extents_.pop_front();
    const uint64_t bytes_max = image_.record_bytes_max();
    if (extent.bytes > bytes_max) {
      extents_.push_front({extent.kind, extent.offset + bytes_max, extent.bytes - bytes_max});
      extent.bytes = bytes_max;
    }
    record_left_ = extent.bytes;
  }
  record_ = image_.Encode(extent);
  record_at_ = 0;
  return true;
}

// A message's own overhead counts, so an empty one is something, too.
bool SoftSaveSocket::AllMessagesAreRead() const {
  int queued_bytes = 0;
  return ::ioctl(socket_.get(), SIOCOUTQ, &queued_bytes) != 0 || queued_bytes == 0;
}

// Not behind a message that waits: a read of a SOCK_SEQPACKET looks for a message first and for the
// end then, not at both at once (unix_dgram_recvmsg() of Linux, up to 6.18 at least), so it would
// say "the end" if both came in between.
SoftSaveSocket::Step SoftSaveSocket::End() {
  if (messages_ && !AllMessagesAreRead()) {
    ++end_polls_;
    return Step::kWait;
  }
  ::shutdown(socket_.get(), SHUT_WR);
  return Step::kDone;
}

SoftSaveSocket::Step SoftSaveSocket::SendIdle() {
  MutexLock lock(mutex_);
  if (!extents_.empty()) return Step::kGoOn;
  if (finished_) return End();
  // Under the lock, so that none is sent after Finish() has dropped them.
  if (messages_ && AllMessagesAreRead()) {
    ::send(socket_.get(), "", 0, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  return Step::kWait;
}

SoftSaveSocket::Step SoftSaveSocket::SendSegment() {
  uint64_t bytes = std::min(record_.size() - record_at_, end_at_ - stream_bytes_);
  const uint64_t to_read_end = read_ends_at_ - stream_bytes_;
  bool ends_read = bytes >= to_read_end;
  bytes = std::min(bytes, to_read_end);
  if (messages_) {
    bytes = std::min(bytes, kOneBufferBytes);
  } else if (ends_read && bytes > kOneBufferBytes) {
    --bytes;  // the last byte goes out by itself, with the fd
    ends_read = false;
  }
  const ssize_t sent = Send(absl::string_view(record_).substr(record_at_, bytes), ends_read);
  if (sent < 0) {
    // ETOOMANYREFS: too many fds wait in sockets. Both pass as the reader reads.
    const bool full = errno == EAGAIN || errno == EINTR || errno == ETOOMANYREFS;
    return full ? Step::kWait : Step::kDone;  // EPIPE: nobody reads
  }
  const auto taken = static_cast<uint64_t>(sent);
  record_at_ += taken;
  stream_bytes_ += taken;
  if (stream_bytes_ == read_ends_at_) {
    read_ends_at_ = options_.read_bytes > 0 ? stream_bytes_ + options_.read_bytes : kNever;
  }
  return Step::kGoOn;
}

ssize_t SoftSaveSocket::Send(absl::string_view bytes, bool ends_read) {
  iovec part = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (ends_read && !messages_) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int any_fd = wake_.fd();
    std::memcpy(CMSG_DATA(header), &any_fd, sizeof(any_fd));
  }
  return ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// The stream ends here by injection.
SoftSaveSocket::Step SoftSaveSocket::EndAt() {
  if (options_.truncate_at == end_at_) {
    MutexLock lock(mutex_);
    if (!finished_ && messages_) return Step::kWait;  // in PRE_COPY it just falls silent
    return End();
  }
  // An error overtakes messages, but not a stream's bytes.
  if (messages_ && !AllMessagesAreRead()) return Step::kWait;
  if (options_.lost_at == end_at_) lost_.store(true, std::memory_order_release);
  socket_.Reset();
  return Step::kDone;
}

void SoftSaveSocket::Sleep(bool for_socket) {
  std::array<pollfd, 2> events = {
      {{wake_.fd(), POLLIN, 0}, {for_socket ? socket_.get() : -1, POLLOUT, 0}}};
  const timespec& interval = end_polls_ > 0 && end_polls_ < kEndPolls ? kEndPoll : kIdlePoll;
  ::ppoll(events.data(), events.size(), messages_ ? &interval : nullptr, nullptr);
  if (events[0].revents != 0) wake_.Clear();
}

}  // namespace godwit
