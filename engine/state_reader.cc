#include "engine/state_reader.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/errno_status.h"
#include "base/in_memory.h"
#include "engine/read_outcome.h"

namespace godwit {
namespace {

// Pipes and sockets are polled by io_uring, which is cheapest. Everything else that a data_fd can
// be would first be tried inline for nothing (no .poll: punted after a failed attempt) or retried
// a hundred times (mlx5's), so it goes straight to an io-wq thread.
bool IsPolledWell(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode));
}

// A read that takes longer is not for the worker, which has lanes to look after; and so are some
// more.
constexpr std::chrono::milliseconds kReadAtOnceMax{20};
constexpr uint32_t kLeftPackets = 64;  // the next ones after it

}  // namespace

StateReader::StateReader(uint16_t device, std::string name, UniqueFd data_fd, size_t packet_bytes,
                         uint32_t chain_packets, IoRing& ring, Arena& arena, DeviceState state,
                         bool crc)
    : device_(device),
      name_(std::move(name)),
      data_fd_(std::move(data_fd)),
      packet_bytes_(packet_bytes),
      chain_packets_(chain_packets),
      polled_well_(IsPolledWell(data_fd_.get())),
      crc_(crc),
      ring_(ring),
      arena_(arena),
      chain_(chain_packets),
      ready_(size_t{2} * chain_packets),
      state_(state) {
  GODWIT_CHECK(packet_bytes <= arena.payload_bytes_max());
  SetNonBlocking(state != DeviceState::kStopCopy);
}

StateReader::~StateReader() { GODWIT_CHECK(idle()); }

// In PRE_COPY a driver that honours O_NONBLOCK (mlx5) would else hold a read until its device has
// something, and the switchover with it. In STOP_COPY waiting is what is wanted.
void StateReader::SetNonBlocking(bool on) {
  const int flags = ::fcntl(data_fd_.get(), F_GETFL);
  if (flags >= 0) {
    ::fcntl(data_fd_.get(), F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
  }
}

void StateReader::EnterStopCopy() {
  GODWIT_CHECK(idle());
  SetNonBlocking(false);
  state_ = DeviceState::kStopCopy;
  dry_ = false;
}

void StateReader::LetWorkerRead() {
  may_read_at_once_ = state_ == DeviceState::kStopCopy && IsInMemory(data_fd_.get());
}

bool StateReader::MayRead() const {
  return idle() && !dry_ && !ended_ && !cancelled_ && status_.ok();
}

bool StateReader::ReadAtOnce(size_t packet_bytes) {
  if (!MayRead() || ready_.free() == 0) return false;
  Buffer buffer = arena_.TryAcquire();
  if (!buffer) return false;
  std::byte* const payload = buffer.payload();
  chain_.Push(std::move(buffer));
  const Clock::Duration began = Clock::Steady().Now();
  if (trace_ != nullptr) read_began_ = began;
  const ssize_t got = ::read(data_fd_.get(), payload, std::min(packet_bytes, packet_bytes_));
  const int result = got >= 0 ? static_cast<int>(got) : -errno;
  // Memory that has to come from a swap device, say.
  const bool slow = Clock::Steady().Now() - began > kReadAtOnceMax;
  OnComplete(result);
  if (slow) left_packets_ = kLeftPackets;
  return true;
}

bool StateReader::Pump(size_t packet_bytes) {
  if (!MayRead() || ready_.free() < chain_packets_) return false;
  ring_.Reserve(chain_packets_);  // a submission in mid-chain would end the chain
  const auto bytes = static_cast<unsigned>(std::min(packet_bytes, packet_bytes_));
  constexpr auto kCurrentPosition = static_cast<uint64_t>(-1);
  io_uring_sqe* last = nullptr;
  for (uint32_t i = 0; i < chain_packets_; ++i) {
    Buffer buffer = arena_.TryAcquire();
    if (!buffer) break;
    io_uring_sqe* const sqe = ring_.NextSqe();
    if (ring_.arena_registered()) {
      io_uring_prep_read_fixed(sqe, data_fd_.get(), buffer.payload(), bytes, kCurrentPosition, 0);
    } else {
      io_uring_prep_read(sqe, data_fd_.get(), buffer.payload(), bytes, kCurrentPosition);
    }
    // HARDLINK, unlike LINK, goes on after a short read.
    sqe->flags |= IOSQE_IO_HARDLINK;
    if (!polled_well_) {
      sqe->flags |= IOSQE_ASYNC;
    } else if (in_pre_copy()) {
      // Of a file that it can poll io_uring takes no notice of O_NONBLOCK; of others it does, and
      // would refuse this flag.
      sqe->rw_flags = RWF_NOWAIT;
    }
    ring_.Attach(sqe, this);
    chain_.Push(std::move(buffer));
    last = sqe;
  }
  if (last == nullptr) return false;
  last->flags &= static_cast<uint8_t>(~IOSQE_IO_HARDLINK);
  if (trace_ != nullptr) read_began_ = Clock::Steady().Now();
  return true;
}

void StateReader::OnComplete(int result) {
  Buffer buffer = chain_.Pop();
  // A hard-linked chain runs on after the end and after an error. Nothing of that counts: a retry
  // after an error can "succeed" on a stream with a hole.
  if (ended_ || cancelled_ || !status_.ok()) return;
  const ReadOutcome outcome = ClassifyRead(result, state_);
  if (trace_ != nullptr) TraceRead(result > 0 ? static_cast<uint64_t>(result) : 0);
  // What the last read of a chain says counts: data may come in between.
  dry_ = outcome == ReadOutcome::kNothingNow && state_ != DeviceState::kStopCopy;
  switch (outcome) {
    case ReadOutcome::kData:
      TakeData(buffer, static_cast<size_t>(result));
      return;
    case ReadOutcome::kEnd:
      ended_ = true;
      return;
    case ReadOutcome::kNothingNow:  // in STOP_COPY it is read again with the next chain
      return;
    case ReadOutcome::kCancelled:
      cancelled_ = true;
      status_ = absl::CancelledError(absl::StrCat("device ", name_, ": the read was cancelled"));
      return;
    case ReadOutcome::kError:
      status_ = ErrnoStatus(-result, absl::StrCat("device ", name_, ": reading its state at byte ",
                                                  stream_bytes_, " failed"));
      return;
  }
}

void StateReader::TakeData(Buffer& buffer, size_t bytes) {
  if (next_index_ == kPacketIndexInvalid - 1) {  // the last valid index is the config packet's
    status_ = absl::OutOfRangeError(
        absl::StrCat("device ", name_, ": more than 2^32 - 2 packets; use larger packets"));
    return;
  }
  buffer.set_payload_bytes(bytes);
  Packet& packet = ready_.PushInPlace();
  packet.header = PacketHeader();
  packet.header.device = device_;
  packet.header.payload_bytes = static_cast<uint32_t>(bytes);
  packet.header.stream_offset = stream_bytes_;
  packet.header.index = next_index_++;
  packet.header.crc_before = stream_crc_;
  if (crc_) stream_crc_ = Crc32cExtend(stream_crc_, buffer.payload_span());
  packet.header.crc_after = stream_crc_;
  stream_bytes_ += bytes;
  if (left_packets_ > 0) --left_packets_;
  packet.buffer = std::move(buffer);
}

void StateReader::TraceRead(uint64_t bytes) {
  TraceSpan span;
  span.track = TraceSpan::Track::kReader;
  span.number = device_;
  span.name = bytes > 0 ? "read" : "nothing";
  span.begin = read_began_;
  span.end = Clock::Steady().Now();
  span.bytes = bytes;
  span.device = device_;
  span.index = next_index_;
  read_began_ = span.end;  // the chain's next read begins as this one ends
  trace_->OnSpan(span);
}

Packet StateReader::MakeConfigPacket(absl::string_view config, Buffer buffer) {
  GODWIT_CHECK(finished());
  EncodeConfigPayload(config, buffer);
  Packet packet;
  packet.header.device = device_;
  packet.header.payload_bytes = static_cast<uint32_t>(buffer.payload_bytes());
  packet.header.stream_offset = stream_bytes_;
  packet.header.index = next_index_++;
  packet.header.crc_before = stream_crc_;
  packet.header.crc_after = stream_crc_;
  if (crc_) packet.header.config_crc = Crc32cExtend(kCrc32cOfNothing, buffer.payload_span());
  packet.header.flags = kPacketFlagConfigState;
  packet.buffer = std::move(buffer);
  return packet;
}

void StateReader::Cancel() {
  cancelled_ = true;
  if (!idle()) ring_.Cancel(this);
}

}  // namespace godwit
