// A lane over one stream socket, driven by io_uring.
#ifndef GODWIT_TRANSPORT_TCP_TCP_LANE_H_
#define GODWIT_TRANSPORT_TCP_TCP_LANE_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/arena.h"
#include "base/io_ring.h"
#include "godwit/unique_fd.h"
#include "transport/lane.h"

namespace godwit {

// On the wire each message follows its length: 4 bytes, big-endian, header and payload but not
// themselves. The sender writes them into the header room, so that length, header and payload are
// one piece of memory; the receiver reads them first and then the message straight into a Buffer.
//
// Ownership: owns the socket and the Buffers it was given; the ring and the arena outlive it.
// Threads:   the ring's thread only.
// Blocking:  never. Progress is made while the ring waits.
// Errors:    sticky, see Lane. InvalidArgument: the peer broke the framing. DataLoss: the stream
//            ended inside a message. Unavailable: the connection was lost.
class TcpLane final : public Lane {
 public:
  // How many operations a lane has in the ring at most: its transfer and, when sending, the watch
  // for the peer's end, each with a request to cancel it.
  static constexpr unsigned kRingEntriesMax = 4;

  // Takes a connected stream socket and begins to receive. REQUIRES: limits as lane.h states
  // them; all Buffers given to the lane hold limits.payload_bytes_max.
  static std::unique_ptr<TcpLane> Make(UniqueFd socket, IoRing& ring, const LaneLimits& limits,
                                       LaneRole role, std::string name);
  ~TcpLane() override;
  TcpLane(const TcpLane&) = delete;
  TcpLane& operator=(const TcpLane&) = delete;

  [[nodiscard]] size_t Send(absl::Span<Buffer> packets) override;
  [[nodiscard]] size_t PollSent(absl::Span<Buffer> sent) override;
  [[nodiscard]] size_t PostReceives(absl::Span<Buffer> buffers) override;
  size_t receives_wanted() const override;
  [[nodiscard]] size_t PollReceived(absl::Span<Buffer> received) override;

  void Close() override;
  bool quiescent() const override { return !transfer_.in_flight && !watch_.in_flight; }
  bool peer_closed() const override { return peer_closed_; }
  bool is_tcp() const override { return true; }
  const absl::Status& status() const override { return status_; }
  const std::string& name() const override { return name_; }

 private:
  static constexpr size_t kPrefixBytes = 4;
  static_assert(kPrefixBytes <= kLaneHeaderRoomBytes);
  // One send carries messages until it has this many or, whichever is first, this many bytes:
  // small ones share a system call, large ones come back one by one.
  static constexpr size_t kGatherMessagesMax = 8;
  static constexpr size_t kGatherBytes = size_t{256} << 10;

  // One of the lane's two operations, each in flight at most once.
  struct Operation final : IoRing::Op {
    using Handler = void (TcpLane::*)(int result);
    Operation(TcpLane& its_lane, Handler its_handler) : lane(its_lane), handler(its_handler) {}
    void OnComplete(int result) override {
      in_flight = false;
      (lane.*handler)(result);
    }
    TcpLane& lane;
    const Handler handler;
    bool in_flight = false;
  };

  TcpLane(UniqueFd socket, IoRing& ring, const LaneLimits& limits, LaneRole role, std::string name);

  // The Buffers form one queue: [polled_, done_) are finished, [done_, posted_) wait or are under
  // way. A slot is empty from the poll to the next post.
  Buffer& Slot(uint64_t index) { return slots_[index & slot_mask_]; }
  size_t FreeSlots() const { return limits_.queue_packets - (posted_ - polled_); }
  size_t PollUpTo(uint64_t end, absl::Span<Buffer> out);

  void SubmitSend();
  void OnSent(int result);
  void SubmitReceive();
  void OnReceived(int result);
  void OnPrefix();
  void OnMessage();

  void SubmitWatch();
  void OnWatch(int result);
  void OnEndOfStream();
  void FailConnection(int error, absl::string_view doing);
  void Fail(absl::Status status);
  std::string Progress() const;  // "12 of 1048616 bytes of a message"

  // Constant after construction.
  const UniqueFd socket_;
  IoRing& ring_;
  const LaneLimits limits_;
  const LaneRole role_;
  const std::string name_;
  const uint64_t slot_mask_;
  const std::unique_ptr<Buffer[]> slots_;

  // Hot.
  uint64_t polled_ = 0;
  uint64_t done_ = 0;
  uint64_t posted_ = 0;
  // Of the piece under way: when sending, message done_ with its prefix; when receiving, the
  // prefix or, once that has come, message done_.
  size_t piece_done_bytes_ = 0;
  size_t piece_bytes_ = kPrefixBytes;  // receiving only
  bool prefix_known_ = false;          // receiving only
  std::array<std::byte, kPrefixBytes> prefix_{};
  std::array<iovec, kGatherMessagesMax> gather_{};
  msghdr gather_header_{};
  Operation transfer_;

  // Cold.
  Operation watch_;
  std::byte watched_byte_{};
  bool peer_closed_ = false;
  absl::Status status_;
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_TCP_TCP_LANE_H_
