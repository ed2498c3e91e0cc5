#include "engine/precopy_watch.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/thread_name.h"

namespace godwit {
namespace {

// poll(2) says "readable" of every file without .poll; epoll tells them apart.
bool HasPoll(int fd) {
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  return epoll.valid() && ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

// What is more is no number of bytes, and must not wrap when it is added to others.
uint64_t Believable(uint64_t bytes) { return std::min(bytes, uint64_t{1} << 61); }

uint64_t Less(uint64_t from, uint64_t take) { return from - std::min(from, take); }

}  // namespace

void TakeAnswer(const PrecopyInfo& info, uint64_t read_bytes, Clock::Duration now,
                PrecopyEstimate& estimate) {
  const uint64_t read_since = Less(read_bytes, estimate.read_bytes_before);
  const uint64_t unread = Less(estimate.initial_bytes + estimate.dirty_bytes, read_since);
  const uint64_t more = Less(info.dirty_bytes, unread);
  const double elapsed_s = std::chrono::duration<double>(now - estimate.more_at).count();
  if (estimate.asked == 0) {
    estimate.more_at = now;
  } else if (more > 0 || info.initial_bytes + info.dirty_bytes == 0) {
    estimate.dirty_bytes_per_second = elapsed_s > 0 ? static_cast<double>(more) / elapsed_s : 0;
    estimate.more_at = now;
  }
  estimate.initial_bytes = info.initial_bytes;
  estimate.dirty_bytes = info.dirty_bytes;
  estimate.read_bytes_before = read_bytes;
  estimate.asked_at = now;
  ++estimate.asked;
}

uint64_t RemainingBytes(const PrecopyEstimate& estimate, uint64_t read_bytes, uint64_t state_bytes,
                        Clock::Duration now) {
  const auto dirty_since = [&](Clock::Duration then) {
    const double age_s = std::chrono::duration<double>(now - then).count();
    return static_cast<uint64_t>(
        std::min(estimate.dirty_bytes_per_second * std::max(0.0, age_s), 0x1p61));
  };
  const uint64_t read_since = Less(read_bytes, estimate.read_bytes_before);
  const uint64_t unread = Less(estimate.initial_bytes + estimate.dirty_bytes, read_since);
  // Without what gets dirty meanwhile a chunk that is being read would look like convergence.
  const uint64_t announced = unread + dirty_since(estimate.more_at);
  const uint64_t in_stop_copy =
      Less(estimate.stop_copy_bytes.value_or(0), read_since) + dirty_since(estimate.asked_at);
  const uint64_t remaining = std::max(announced, in_stop_copy);
  return state_bytes == 0 ? remaining : std::min(remaining, unread + Believable(state_bytes));
}

absl::StatusOr<std::unique_ptr<PrecopyWatch>> PrecopyWatch::Make(Device& device, size_t index,
                                                                 UniqueFd data_fd,
                                                                 SourceWorker& worker,
                                                                 std::chrono::milliseconds interval,
                                                                 const Notifier& events) {
  GODWIT_ASSIGN_OR_RETURN(Notifier wake, Notifier::Create());
  UniqueFd duplicate(::fcntl(data_fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!duplicate.valid()) return ErrnoStatus(errno, "dup of a device's stream");
  return std::unique_ptr<PrecopyWatch>(new PrecopyWatch(device, index, std::move(data_fd),
                                                        std::move(duplicate), worker, interval,
                                                        std::move(wake), events));
}

PrecopyWatch::PrecopyWatch(Device& device, size_t index, UniqueFd data_fd, UniqueFd duplicate,
                           SourceWorker& worker, std::chrono::milliseconds interval, Notifier wake,
                           const Notifier& events)
    : device_(device),
      index_(index),
      worker_(worker),
      interval_(interval),
      pollable_(HasPoll(data_fd.get())),
      fd_(std::move(duplicate)),
      wake_(std::move(wake)),
      events_(events),
      data_fd_(std::move(data_fd)) {}

PrecopyWatch::~PrecopyWatch() { Stop(); }

void PrecopyWatch::Start() {
  thread_ = std::thread([this] {
    NameThisThread("godwit-precopy");
    Run();
  });
}

void PrecopyWatch::Stop() {
  blocked_call_.StopAsked();
  stop_.store(true, std::memory_order_relaxed);
  wake_.Notify();
  if (thread_.joinable()) thread_.join();
  fd_.Reset();  // there are drivers that wait for the last one to close before they leave STOP_COPY
}

absl::Status PrecopyWatch::status() const {
  MutexLock lock(mutex_);
  return status_;
}

PrecopyEstimate PrecopyWatch::estimate() const {
  MutexLock lock(mutex_);
  return estimate_;
}

std::vector<PrecopyIteration> PrecopyWatch::TakeIterations() {
  MutexLock lock(mutex_);
  return std::exchange(iterations_, {});
}

void PrecopyWatch::Run() {
  absl::Status status = Watch();
  if (status.ok()) return;
  {
    MutexLock lock(mutex_);
    status_ = Annotate(status, absl::StrCat("device ", device_.name(), " in PRE_COPY"));
  }
  events_.Notify();
}

absl::Status PrecopyWatch::Watch() {
  GODWIT_RETURN_IF_ERROR(Ask(/*dry=*/false));
  worker_.Open(index_, std::move(data_fd_), DeviceState::kPreCopy, &wake_);
  const SourceWorker::DeviceCounters& counters = worker_.device_counters(index_);
  uint64_t seen_bytes = 0;
  for (uint64_t times_dry = 0; WaitUntilDry(times_dry);) {
    times_dry = counters.times_dry.load(std::memory_order_acquire);
    dry_at_ = Clock::Steady().Now();
    // "Nothing now" may be over in a moment: a stream that can be polled says when, unless what it
    // said last time was not true.
    const uint64_t read_bytes = counters.read_bytes.load(std::memory_order_relaxed);
    const bool believe_poll = pollable_ && read_bytes != seen_bytes;
    seen_bytes = read_bytes;
    const Woken woken = Sleep(asked_at_ + interval_, believe_poll);
    if (woken == Woken::kStopped) break;
    if (woken == Woken::kInTime) GODWIT_RETURN_IF_ERROR(Ask(/*dry=*/true));
    worker_.ReadAgain(index_);
  }
  return absl::OkStatus();
}

// The stream is dry or not yet begun, so nothing is read meanwhile.
absl::Status PrecopyWatch::Ask(bool dry) {
  absl::StatusOr<PrecopyInfo> info =
      blocked_call_.Around([this] { return device_.GetPrecopyInfo(fd_.get()); });
  if (absl::IsUnimplemented(info.status())) info = PrecopyInfo{};
  if (!info.ok()) return info.status();
  info->initial_bytes = Believable(info->initial_bytes);
  info->dirty_bytes = Believable(info->dirty_bytes);
  // Second, since the first can make data that is then to be read as well.
  const absl::StatusOr<uint64_t> stop_copy_bytes =
      blocked_call_.Around([this] { return device_.StopCopyBytes(); });
  asked_at_ = Clock::Steady().Now();

  const SourceWorker::DeviceCounters& counters = worker_.device_counters(index_);
  const uint64_t read_bytes = counters.read_bytes.load(std::memory_order_relaxed);
  PrecopyIteration iteration;
  iteration.device = index_;
  iteration.bytes = read_bytes - iteration_read_bytes_;
  iteration.duration = dry_at_ - iteration_began_;
  iteration.initial_bytes = info->initial_bytes;
  iteration.dirty_bytes = info->dirty_bytes;
  iteration_began_ = asked_at_;  // the stream is read again from here on
  iteration_read_bytes_ = read_bytes;

  {
    MutexLock lock(mutex_);
    iteration.number = estimate_.asked;  // the first time that it is asked ends no round
    TakeAnswer(*info, read_bytes, asked_at_, estimate_);
    estimate_.stop_copy_bytes.reset();
    if (stop_copy_bytes.ok()) estimate_.stop_copy_bytes = Believable(*stop_copy_bytes);
    estimate_.exhausted = dry && info->initial_bytes == 0 && info->dirty_bytes == 0;
    // Initial bytes that are announced again (REINIT) have to be read and loaded again.
    if (info->initial_bytes > 0) {
      estimate_.initial_read = false;
    } else if (!estimate_.initial_read) {
      estimate_.initial_read = true;
      estimate_.initial_packets = counters.read_packets.load(std::memory_order_relaxed);
    }
    if (dry && iterations_.size() < kIterationsMax) iterations_.push_back(iteration);
  }
  events_.Notify();
  return absl::OkStatus();
}

// False when it is time to stop.
bool PrecopyWatch::WaitUntilDry(uint64_t times_dry) {
  const SourceWorker::DeviceCounters& counters = worker_.device_counters(index_);
  // stop_ is looked at before each wait: its notification may have been cleared along with another.
  while (!stop_.load(std::memory_order_relaxed) &&
         counters.times_dry.load(std::memory_order_acquire) == times_dry) {
    pollfd wake = {wake_.fd(), POLLIN, 0};
    ::poll(&wake, 1, -1);
    wake_.Clear();
  }
  return !stop_.load(std::memory_order_relaxed);
}

PrecopyWatch::Woken PrecopyWatch::Sleep(Clock::Duration until, bool for_stream) {
  while (!stop_.load(std::memory_order_relaxed)) {
    const Clock::Duration left = until - Clock::Steady().Now();
    if (left <= Clock::Duration::zero()) return Woken::kInTime;
    std::array<pollfd, 2> fds = {
        {{wake_.fd(), POLLIN, 0}, {for_stream ? fd_.get() : -1, POLLIN, 0}}};
    const timespec timeout = {left.count() / 1'000'000'000, left.count() % 1'000'000'000};
    ::ppoll(fds.data(), fds.size(), &timeout, nullptr);
    if (fds[0].revents != 0) wake_.Clear();
    if (fds[1].revents != 0) return Woken::kByStream;
  }
  return Woken::kStopped;
}

}  // namespace godwit
