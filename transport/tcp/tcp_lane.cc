// Set-up, tear-down and failure of a TCP lane. The hot path is in tcp_lane_datapath.cc.
#include "transport/tcp/tcp_lane.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {

std::unique_ptr<TcpLane> TcpLane::Make(UniqueFd socket, IoRing& ring, const LaneLimits& limits,
                                       LaneRole role, std::string name) {
  GODWIT_CHECK(socket.valid());
  GODWIT_CHECK(limits.header_bytes >= 1 &&
               limits.header_bytes <= kHeaderRoomBytes - kLaneHeaderRoomBytes);
  GODWIT_CHECK(limits.payload_bytes_max >= 1 &&
               limits.payload_bytes_max <= kMessageBytesMax - limits.header_bytes);
  GODWIT_CHECK(limits.queue_packets >= 1);
  TuneLaneSocket(socket.get());
  std::unique_ptr<TcpLane> lane(
      new TcpLane(std::move(socket), ring, limits, role, std::move(name)));
  if (role == LaneRole::kSender) {
    lane->SubmitWatch();
  } else {
    lane->SubmitReceive();
  }
  return lane;
}

TcpLane::TcpLane(UniqueFd socket, IoRing& ring, const LaneLimits& limits, LaneRole role,
                 std::string name)
    : socket_(std::move(socket)),
      ring_(ring),
      limits_(limits),
      role_(role),
      name_(std::move(name)),
      slot_mask_(std::bit_ceil(uint64_t{limits.queue_packets}) - 1),
      slots_(new Buffer[slot_mask_ + 1]),
      transfer_(*this, role == LaneRole::kSender ? &TcpLane::OnSent : &TcpLane::OnReceived),
      watch_(*this, &TcpLane::OnWatch) {
  gather_header_.msg_iov = gather_.data();
}

TcpLane::~TcpLane() { GODWIT_CHECK(quiescent()); }

void TcpLane::Close() { Fail(absl::CancelledError(absl::StrCat(name_, ": closed by this side"))); }

// The receiver never writes on a lane, so a receive at the sender ends only when the peer closes
// or the connection breaks. Without it a sender that has nothing to send would never know.
void TcpLane::SubmitWatch() {
  io_uring_sqe* const sqe = ring_.NextSqe();
  io_uring_prep_recv(sqe, socket_.get(), &watched_byte_, sizeof(watched_byte_), 0);
  ring_.Attach(sqe, &watch_);
  watch_.in_flight = true;
}

void TcpLane::OnWatch(int result) {
  if (!status_.ok()) return;
  if (result == -EINTR) return SubmitWatch();
  if (result < 0) return FailConnection(-result, "waiting for the peer");
  if (result > 0) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat(name_, ": the peer wrote to a lane that it should only read from")));
  }
  peer_closed_ = true;
  if (done_ < posted_) OnEndOfStream();
}

void TcpLane::OnEndOfStream() {
  if (role_ == LaneRole::kSender) {
    return Fail(absl::UnavailableError(
        absl::StrCat(name_, ": the peer closed the connection while there was more to send")));
  }
  if (!prefix_known_ && piece_done_bytes_ == 0) {
    peer_closed_ = true;
    return;
  }
  Fail(absl::DataLossError(
      absl::StrCat(name_, ": the peer closed the connection after ", Progress())));
}

void TcpLane::FailConnection(int error, absl::string_view doing) {
  const bool inside = role_ == LaneRole::kReceiver && (prefix_known_ || piece_done_bytes_ > 0);
  Fail(absl::UnavailableError(absl::StrCat(name_, ": connection lost while ", doing,
                                           inside ? absl::StrCat(" after ", Progress()) : "", ": ",
                                           std::strerror(error))));
}

// The socket is shut down as well: it tells the peer, and it ends an operation that the
// cancellation comes too late for.
void TcpLane::Fail(absl::Status status) {
  if (!status_.ok()) return;
  status_ = std::move(status);
  ::shutdown(socket_.get(), SHUT_RDWR);
  if (transfer_.in_flight) ring_.Cancel(&transfer_);
  if (watch_.in_flight) ring_.Cancel(&watch_);
}

std::string TcpLane::Progress() const {
  return absl::StrCat(piece_done_bytes_, " of ", piece_bytes_, " bytes of a message",
                      prefix_known_ ? "" : "'s length prefix");
}

}  // namespace godwit
