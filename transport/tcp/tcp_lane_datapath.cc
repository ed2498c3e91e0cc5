// The hot path of a TCP lane. Per message sent: one slot, one iovec, a share of a system call. Per
// message received: two receives, of the length and of the message. No copy and no allocation.
#include <endian.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "transport/tcp/tcp_lane.h"

namespace godwit {

size_t TcpLane::PollUpTo(uint64_t end, absl::Span<Buffer> out) {
  const size_t count = std::min<size_t>(out.size(), end - polled_);
  for (size_t i = 0; i < count; ++i) out[i] = std::move(Slot(polled_ + i));
  polled_ += count;
  done_ = std::max(done_, polled_);
  return count;
}

// --- Sending ---

size_t TcpLane::Send(absl::Span<Buffer> packets) {
  if (role_ != LaneRole::kSender || packets.empty() || !status_.ok()) return 0;
  if (peer_closed_) {
    OnEndOfStream();
    return 0;
  }
  const size_t count = std::min(packets.size(), FreeSlots());
  for (Buffer& packet : packets.first(count)) {
    GODWIT_DCHECK(packet.payload_bytes() <= limits_.payload_bytes_max);
    const auto message_bytes = static_cast<uint32_t>(limits_.header_bytes + packet.payload_bytes());
    const uint32_t prefix = htobe32(message_bytes);
    std::memcpy(packet.header(limits_.header_bytes + kPrefixBytes), &prefix, kPrefixBytes);
    Slot(posted_++) = std::move(packet);
  }
  if (!transfer_.in_flight) SubmitSend();
  return count;
}

// One send at a time keeps the stream in order; the socket's own buffer bridges the gap between
// two of them.
void TcpLane::SubmitSend() {
  size_t skip_bytes = piece_done_bytes_;  // of the first message: what an earlier send got through
  size_t gathered_bytes = 0;
  size_t count = 0;
  while (done_ + count < posted_ && count < kGatherMessagesMax && gathered_bytes < kGatherBytes) {
    const Buffer& packet = Slot(done_ + count);
    std::byte* const piece = packet.header(limits_.header_bytes + kPrefixBytes) + skip_bytes;
    const auto bytes = static_cast<size_t>(packet.payload() + packet.payload_bytes() - piece);
    gather_[count++] = {piece, bytes};
    gathered_bytes += bytes;
    skip_bytes = 0;
  }
  if (count == 0) return;
  gather_header_.msg_iovlen = count;
  io_uring_sqe* const sqe = ring_.NextSqe();
  io_uring_prep_sendmsg(sqe, socket_.get(), &gather_header_, MSG_WAITALL | MSG_NOSIGNAL);
  ring_.Attach(sqe, &transfer_);
  transfer_.in_flight = true;
}

void TcpLane::OnSent(int result) {
  if (!status_.ok()) return;
  if (result < 0 && result != -EINTR) return FailConnection(-result, "sending");
  piece_done_bytes_ += static_cast<size_t>(std::max(result, 0));
  while (done_ < posted_) {
    const size_t piece_bytes = kPrefixBytes + limits_.header_bytes + Slot(done_).payload_bytes();
    if (piece_done_bytes_ < piece_bytes) break;
    piece_done_bytes_ -= piece_bytes;
    ++done_;
  }
  SubmitSend();
}

size_t TcpLane::PollSent(absl::Span<Buffer> sent) {
  if (role_ != LaneRole::kSender) return 0;
  // After a failure the unsent ones come back too, but not before the kernel has let go of them.
  const bool abandoned = !status_.ok() && !transfer_.in_flight;
  return PollUpTo(abandoned ? posted_ : done_, sent);
}

// --- Receiving: length, message, length, message … ---

size_t TcpLane::PostReceives(absl::Span<Buffer> buffers) {
  const size_t count = std::min(buffers.size(), receives_wanted());
  for (Buffer& buffer : buffers.first(count)) {
    GODWIT_DCHECK(buffer.payload_bytes_max() >= limits_.payload_bytes_max);
    Slot(posted_++) = std::move(buffer);
  }
  // A message whose length is known may have been waiting for a Buffer.
  if (count > 0 && !transfer_.in_flight && !peer_closed_) SubmitReceive();
  return count;
}

void TcpLane::SubmitReceive() {
  if (prefix_known_ && done_ == posted_) return;  // PostReceives goes on
  std::byte* const piece =
      prefix_known_ ? Slot(done_).header(limits_.header_bytes) : prefix_.data();
  io_uring_sqe* const sqe = ring_.NextSqe();
  io_uring_prep_recv(sqe, socket_.get(), piece + piece_done_bytes_,
                     piece_bytes_ - piece_done_bytes_, MSG_WAITALL);
  ring_.Attach(sqe, &transfer_);
  transfer_.in_flight = true;
}

void TcpLane::OnReceived(int result) {
  if (!status_.ok()) return;
  if (result == 0) return OnEndOfStream();
  if (result < 0 && result != -EINTR) return FailConnection(-result, "receiving");
  piece_done_bytes_ += static_cast<size_t>(std::max(result, 0));
  if (piece_done_bytes_ == piece_bytes_) prefix_known_ ? OnMessage() : OnPrefix();
  if (status_.ok()) SubmitReceive();
}

void TcpLane::OnPrefix() {
  uint32_t prefix = 0;
  std::memcpy(&prefix, prefix_.data(), kPrefixBytes);
  const size_t message_bytes = be32toh(prefix);
  const size_t message_bytes_max = limits_.header_bytes + limits_.payload_bytes_max;
  if (message_bytes < limits_.header_bytes || message_bytes > message_bytes_max) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat(name_, ": the peer announced a message of ", message_bytes,
                     " bytes, allowed are ", limits_.header_bytes, " to ", message_bytes_max)));
  }
  prefix_known_ = true;
  piece_bytes_ = message_bytes;
  piece_done_bytes_ = 0;
}

void TcpLane::OnMessage() {
  Slot(done_++).set_payload_bytes(piece_bytes_ - limits_.header_bytes);
  prefix_known_ = false;
  piece_bytes_ = kPrefixBytes;
  piece_done_bytes_ = 0;
}

size_t TcpLane::PollReceived(absl::Span<Buffer> received) {
  return role_ == LaneRole::kReceiver ? PollUpTo(done_, received) : 0;
}

size_t TcpLane::receives_wanted() const {
  return role_ == LaneRole::kReceiver && status_.ok() ? FreeSlots() : 0;
}

}  // namespace godwit
