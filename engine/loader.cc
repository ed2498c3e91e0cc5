#include "engine/loader.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

#include "base/errno_status.h"
#include "base/in_memory.h"
#include "base/status_macros.h"
#include "base/thread_name.h"
#include "engine/buffer_budget.h"

namespace godwit {
namespace {

// How often a write to a full non-blocking fd looks whether it is still wanted, should nothing wake
// it.
constexpr int kFullFdPollMs = 100;

// The worker has lanes to look after: no more packets than that in a row, which it may find when
// the one comes that they have waited for.
constexpr uint32_t kHelpPacketsMax = 4;
// A write that takes longer is not for the worker, and so are the next few; a driver's none any
// more.
constexpr std::chrono::milliseconds kHelpTimeMax{20};
constexpr uint32_t kLeftPackets = 64;
// So many writes of the thread's show how long a driver's take.
constexpr uint32_t kTriedWrites = 8;

std::optional<Notifier> NotifierIfAny() {
  absl::StatusOr<Notifier> notifier = Notifier::Create();
  if (!notifier.ok()) return std::nullopt;
  return *std::move(notifier);
}

}  // namespace

Loader::Loader(Device& device, UniqueFd data_fd, ReorderWindow& window, uint32_t window_packets,
               const Notifier& progress, std::unique_ptr<StreamCheck> check)
    : device_(device),
      window_(window),
      packets_a_receipt_(WindowPart(window_packets)),
      half_window_(std::max(window_packets / 2, uint32_t{1})),
      progress_(progress),
      check_(std::move(check)),
      data_fd_(std::move(data_fd)),
      stop_(NotifierIfAny()) {}

Loader::~Loader() { Stop(); }

void Loader::LetWorkerHelp(bool driver) {
  // A check is the embedder's code, and may take its time.
  drivers_ = driver && IsAnonymous(data_fd_.get());
  helped_ = check_ == nullptr && (drivers_ || IsInMemory(data_fd_.get()));
  if (helped_) window_.LetInserterLoad();
}

// HOT PATH, as LoadAll.
bool Loader::Help() {
  if (!helped_) return false;
  const bool tries = drivers_ && tried_writes_.load(std::memory_order_relaxed) < kTriedWrites;
  if (tries || left_packets_ > 0) {
    if (!tries) --left_packets_;
    window_.WakeLoader();
    return false;
  }
  bool due = false;
  for (uint32_t packets = 0; packets < kHelpPacketsMax; ++packets) {
    std::optional<Packet> packet = window_.TakeData();
    if (!packet.has_value()) break;
    if (!WriteAtOnce(*packet)) {
      window_.PutBack(*std::move(packet));
      return due;
    }
    const uint32_t loaded_packets = packet->header.index + 1;
    packet.reset();  // as in LoadAll
    window_.MarkLoaded();
    if (loaded_packets >=
        uint64_t{announced_packets_.load(std::memory_order_relaxed)} + half_window_) {
      AnnouncedLoaded(loaded_packets);
      due = true;
    }
    helped_packets_.fetch_add(1, std::memory_order_relaxed);
    if (left_packets_ > 0) break;
  }
  window_.WakeLoader();
  return due;
}

// Returns whether the whole packet was taken. If not the thread goes on with it, and says what is
// wrong.
bool Loader::WriteAtOnce(const Packet& packet) {
  if (!Continues(packet.header)) return false;
  if (drivers_ && was_slow_.load(std::memory_order_relaxed)) return false;
  const absl::Span<const std::byte> rest = packet.buffer.payload_span().subspan(next_done_bytes_);
  const Clock::Duration began = Clock::Steady().Now();
  const ssize_t written =
      blocked_call_.Around([&] { return ::write(data_fd_.get(), rest.data(), rest.size()); });
  // A driver may have taken some of them all the same: they are not written again.
  if (written < 0 && errno != EINTR && errno != EAGAIN) next_error_ = errno;
  const auto done_bytes = static_cast<size_t>(std::max<ssize_t>(written, 0));
  const bool slow = NoteWrite(packet.header, began, done_bytes) > kHelpTimeMax;
  if (slow) was_slow_.store(true, std::memory_order_relaxed);
  next_done_bytes_ += done_bytes;
  const bool all = next_done_bytes_ == packet.buffer.payload_bytes();
  if (slow || !all) left_packets_ = kLeftPackets;
  if (all) NoteLoaded(packet.header);
  return all;
}

void Loader::NoteLoaded(const PacketHeader& header) {
  next_done_bytes_ = 0;
  stream_crc_ = header.crc_after;
  loaded_bytes_.fetch_add(header.payload_bytes, std::memory_order_relaxed);
}

void Loader::Start() {
  thread_ = std::thread([this] {
    NameThisThread("godwit-loader");
    Run();
  });
}

void Loader::AskToStop() {
  blocked_call_.StopAsked();
  stopped_.store(true, std::memory_order_relaxed);
  if (stop_.has_value()) stop_->Notify();
  window_.Stop();
}

void Loader::Stop() {
  AskToStop();
  if (thread_.joinable()) thread_.join();
}

void Loader::Run() {
  // A device may close its end of the stream: that is an error of the write, not the end of the
  // embedder's process.
  sigset_t broken_pipe;
  ::sigemptyset(&broken_pipe);
  ::sigaddset(&broken_pipe, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);

  status_ = LoadAll();
  phase_.store(status_.ok() ? Phase::kLoaded : Phase::kFailed, std::memory_order_release);
  progress_.Notify();
}

absl::Status Loader::LoadAll() {
  while (true) {
    std::optional<Packet> packet = window_.WaitNext();
    if (!packet.has_value()) return absl::CancelledError("loading was stopped");

    const PacketHeader& header = packet->header;
    const uint64_t offset = loaded_bytes_.load(std::memory_order_relaxed);
    if (!Continues(header)) {
      return absl::DataLossError(absl::StrFormat(
          "device %s: packet %u does not continue the stream: it stands at byte %u with CRC 0x%08x "
          "before it, but %u bytes with CRC 0x%08x have been loaded",
          device_.name(), header.index, header.stream_offset, header.crc_before, offset,
          stream_crc_));
    }
    if (header.is_config()) {
      GODWIT_RETURN_IF_ERROR(Finish(*packet));
      packet.reset();
      window_.MarkLoaded();
      return absl::OkStatus();
    }
    const absl::Span<const std::byte> payload = packet->buffer.payload_span();
    if (check_ != nullptr) GODWIT_RETURN_IF_ERROR(Check(check_->Feed(payload)));
    const Clock::Duration began = Clock::Steady().Now();
    GODWIT_RETURN_IF_ERROR(Write(payload));
    const Clock::Duration took = NoteWrite(header, began, payload.size() - next_done_bytes_);
    if (took > kHelpTimeMax) was_slow_.store(true, std::memory_order_relaxed);
    tried_writes_.fetch_add(1, std::memory_order_relaxed);
    NoteLoaded(header);

    const uint32_t index = header.index;
    packet.reset();  // the buffer must be free before the window lets another packet come
    const bool next_is_there = window_.MarkLoaded();
    if (ReceiptDue(index + 1, next_is_there)) {
      AnnouncedLoaded(index + 1);
      progress_.Notify();
    }
  }
}

// What is announced for the worker's sake says what is loaded, too.
bool Loader::ReceiptDue(uint32_t loaded_packets, bool next_is_there) const {
  const bool hold = hold_receipts_.load(std::memory_order_relaxed);
  if (!next_is_there && !hold) return true;
  return loaded_packets >= uint64_t{announced_packets_.load(std::memory_order_relaxed)} +
                               (hold ? half_window_ : packets_a_receipt_);
}

bool Loader::Continues(const PacketHeader& header) const {
  return header.stream_offset == loaded_bytes_.load(std::memory_order_relaxed) &&
         header.crc_before == stream_crc_;
}

// Returns how long it took.
Clock::Duration Loader::NoteWrite(const PacketHeader& header, Clock::Duration began, size_t bytes) {
  const Clock::Duration now = Clock::Steady().Now();
  write_ns_.fetch_add((now - began).count(), std::memory_order_relaxed);
  if (trace_ == nullptr) return now - began;
  TraceSpan span;
  span.track = TraceSpan::Track::kLoader;
  span.number = number_;
  span.name = "write";
  span.begin = began;
  span.end = now;
  span.bytes = bytes;
  span.device = number_;
  span.index = header.index;
  trace_->OnSpan(span);
  return now - began;
}

absl::Status Loader::Check(const absl::Status& checked) const {
  return Annotate(checked, absl::StrCat("device ", device_.name()));
}

absl::Status Loader::Write(absl::Span<const std::byte> bytes) {
  const size_t total = bytes.size();
  bytes.remove_prefix(next_done_bytes_);
  while (!bytes.empty()) {
    const ssize_t written = next_error_ != 0 ? -1 : blocked_call_.Around([&] {
      return ::write(data_fd_.get(), bytes.data(), bytes.size());
    });
    if (next_error_ != 0) errno = next_error_;  // which the worker was told
    if (written > 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
      continue;
    }
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) {
      std::array<pollfd, 2> fds = {
          {{data_fd_.get(), POLLOUT, 0}, {stop_.has_value() ? stop_->fd() : -1, POLLIN, 0}}};
      ::poll(fds.data(), fds.size(), kFullFdPollMs);
      if (stopped_.load(std::memory_order_relaxed)) {
        return absl::CancelledError("loading was stopped");
      }
      continue;
    }
    const std::string where = absl::StrCat(
        "device ", device_.name(), ": loading its state at byte ",
        loaded_bytes_.load(std::memory_order_relaxed) + total - bytes.size(), " failed");
    return written < 0 ? ErrnoStatus(errno, where)
                       : absl::DataLossError(absl::StrCat(where, ": the device took no bytes"));
  }
  return absl::OkStatus();
}

absl::Status Loader::Finish(const Packet& config) {
  auto content = DecodeConfigPayload(config.buffer.payload_span());
  if (!content.ok()) {
    return Annotate(content.status(), absl::StrCat("device ", device_.name()));
  }
  // A device that was reset behind our back has lost all this and is RUNNING; from there the way to
  // STOP is open.
  const auto state = device_.State();
  if (!state.ok()) return Annotate(state.status(), absl::StrCat("device ", device_.name()));
  if (*state != DeviceState::kResuming) {
    return absl::DataLossError(absl::StrCat("device ", device_.name(), ": it is in ",
                                            DeviceStateName(*state),
                                            " and has lost the state that it was given"));
  }
  if (check_ != nullptr) GODWIT_RETURN_IF_ERROR(Check(check_->End()));
  auto stopped = blocked_call_.Around([&] { return device_.SetState(DeviceState::kStop); });
  if (!stopped.ok()) {
    return Annotate(stopped.status(), absl::StrCat("device ", device_.name(),
                                                   ": it refused the state that it was given"));
  }
  data_fd_.Reset();
  const absl::Status loaded = blocked_call_.Around(
      [&] { return load_config_ ? load_config_(*content) : device_.LoadConfig(*content); });
  return Annotate(loaded,
                  absl::StrCat("device ", device_.name(), ": loading its configuration failed"));
}

}  // namespace godwit
