#include "vfio/soft_load_end.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <limits>
#include <string>
#include <thread>
#include <utility>

#include "base/errno_status.h"
#include "base/notifier.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace godwit {
namespace {

constexpr size_t kChunkBytes = 64 * kKiB;
constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

// Copies: a memfd of the bytes that the driver's buffer has.
class MemoryLoadEnd final : public SoftLoadEnd {
 public:
  MemoryLoadEnd(const SoftImage& image, const Options& options, UniqueFd memory)
      : options_(options), decoder_(image), memory_(std::move(memory)) {}
  ~MemoryLoadEnd() override {
    static_cast<void>(::fcntl(memory_.get(), F_ADD_SEALS, F_SEAL_WRITE));
  }

  absl::Status Finish() override {
    std::string buffer(kChunkBytes, '\0');
    for (uint64_t end = written_bytes(); decoder_.stream_bytes() < end;) {
      const uint64_t at = decoder_.stream_bytes();
      const ssize_t got = ::pread(memory_.get(), buffer.data(), std::min(kChunkBytes, end - at),
                                  static_cast<off_t>(at));
      if (got <= 0) return absl::InternalError("the bytes that were written can't be read back");
      GODWIT_RETURN_IF_ERROR(
          decoder_.Take(absl::string_view(buffer).substr(0, static_cast<size_t>(got))));
    }
    return decoder_.Finish();
  }
  bool complete() const override { return decoder_.complete(); }
  bool lost() const override { return options_.lost_at && written_bytes() >= *options_.lost_at; }

 private:
  // The writer's fd and ours share their position.
  uint64_t written_bytes() const {
    return static_cast<uint64_t>(std::max<off_t>(0, ::lseek(memory_.get(), 0, SEEK_CUR)));
  }

  const Options options_;
  SoftDecoder decoder_;
  UniqueFd memory_;
};

absl::StatusOr<std::unique_ptr<SoftLoadEnd>> OpenMemory(const SoftImage& image,
                                                        const SoftLoadEnd::Options& options,
                                                        UniqueFd& data_fd) {
  const uint64_t device_bytes =
      image.traits().profile == SoftProfile::kMtty ? image.size_bytes() : image.traits().size_max;
  const uint64_t bytes = std::min(device_bytes, options.fail_at.value_or(kNever));
  UniqueFd memory(::memfd_create("godwit-soft", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid() || ::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) != 0) {
    return ErrnoStatus(errno, "memfd_create");
  }
  data_fd = UniqueFd(::fcntl(memory.get(), F_DUPFD_CLOEXEC, 0));
  if (!data_fd.valid()) return ErrnoStatus(errno, "dup of a memfd");
  return std::make_unique<MemoryLoadEnd>(image, options, std::move(memory));
}

// Loads at once: a socket and a thread.
class SocketLoadEnd final : public SoftLoadEnd {
 public:
  SocketLoadEnd(const SoftImage& image, const Options& options, Notifier stop, Notifier finish,
                UniqueFd socket)
      : options_(options),
        decoder_(image),
        stop_(std::move(stop)),
        finish_(std::move(finish)),
        socket_(std::move(socket)),
        end_at_(std::min(options.fail_at.value_or(kNever), options.lost_at.value_or(kNever))),
        buffer_(kChunkBytes, '\0'),
        thread_([this] { Run(); }) {}
  ~SocketLoadEnd() override {
    stop_.Notify();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Finish() override {
    finish_.Notify();
    if (thread_.joinable()) thread_.join();
    GODWIT_RETURN_IF_ERROR(status_);
    return decoder_.Finish();
  }
  bool complete() const override { return decoder_.complete(); }
  bool lost() const override { return lost_.load(std::memory_order_acquire); }

 private:
  enum class Queue { kMore, kEmpty, kEnd };

  void Run() {
    Queue queue = Queue::kMore;
    while (status_.ok()) {
      std::array<pollfd, 3> events = {{{queue == Queue::kEnd ? -1 : socket_.get(), POLLIN, 0},
                                       {stop_.fd(), POLLIN, 0},
                                       {finish_.fd(), POLLIN, 0}}};
      if (::poll(events.data(), events.size(), -1) < 0) continue;  // EINTR
      if (events[1].revents != 0) return;
      if (events[0].revents != 0) queue = ReceiveOnce();
      if (events[2].revents == 0) continue;
      // All is written by now, so the first time that the queue is empty is the end.
      queue = queue == Queue::kEnd ? queue : Queue::kMore;
      while (queue == Queue::kMore) queue = ReceiveOnce();
      return;
    }
  }

  Queue ReceiveOnce() {
    const uint64_t left = end_at_ - decoder_.stream_bytes();
    const size_t bytes = std::min<uint64_t>(buffer_.size(), std::max<uint64_t>(left, 1));
    const int peek = left == 0 ? MSG_PEEK : 0;
    const ssize_t got = ::recv(socket_.get(), buffer_.data(), bytes, MSG_DONTWAIT | peek);
    if (got < 0) return errno == EINTR ? Queue::kMore : Queue::kEmpty;
    if (got == 0) return Queue::kEnd;
    if (left == 0) return Fail(absl::DataLossError(absl::StrCat("byte ", end_at_, " was refused")));
    const absl::Status taken =
        decoder_.Take(absl::string_view(buffer_).substr(0, static_cast<size_t>(got)));
    if (!taken.ok()) return Fail(taken);
    if (options_.lost_at == decoder_.stream_bytes()) {
      lost_.store(true, std::memory_order_release);
      return Fail(absl::DataLossError(absl::StrCat("the device was lost at byte ", end_at_)));
    }
    return Queue::kMore;
  }

  Queue Fail(absl::Status status) {
    status_ = std::move(status);
    socket_.Reset();  // from now on each write fails
    return Queue::kEnd;
  }

  const Options options_;
  // The thread's until it is joined.
  SoftDecoder decoder_;
  absl::Status status_;
  Notifier stop_;
  Notifier finish_;
  UniqueFd socket_;
  const uint64_t end_at_;
  std::string buffer_;

  std::atomic<bool> lost_{false};
  std::thread thread_;  // last: it uses all of the above
};

absl::StatusOr<std::unique_ptr<SoftLoadEnd>> OpenSocket(const SoftImage& image,
                                                        const SoftLoadEnd::Options& options,
                                                        UniqueFd& data_fd) {
  GODWIT_ASSIGN_OR_RETURN(Notifier stop, Notifier::Create());
  GODWIT_ASSIGN_OR_RETURN(Notifier finish, Notifier::Create());
  std::array<int, 2> fds;
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  data_fd = UniqueFd(fds[1]);
  return std::make_unique<SocketLoadEnd>(image, options, std::move(stop), std::move(finish),
                                         UniqueFd(fds[0]));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SoftLoadEnd>> SoftLoadEnd::Open(const SoftImage& image,
                                                               const Options& options,
                                                               UniqueFd& data_fd) {
  // A plain image has no bound, so no memory is set aside for it.
  const bool copies = !image.traits().loads_in_write && image.traits().size_max > 0;
  return copies ? OpenMemory(image, options, data_fd) : OpenSocket(image, options, data_fd);
}

}  // namespace godwit
