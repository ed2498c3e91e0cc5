// One path for packets: what the engine knows of RDMA and TCP.
#ifndef GODWIT_TRANSPORT_LANE_H_
#define GODWIT_TRANSPORT_LANE_H_

#include <absl/status/status.h>
#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/arena.h"

namespace godwit {

// What every lane of a session agrees on. A message is `header_bytes` of header followed by 0 to
// `payload_bytes_max` of payload, side by side in a Buffer.
struct LaneLimits {
  size_t header_bytes = 0;       // 1 to kHeaderRoomBytes - kLaneHeaderRoomBytes
  size_t payload_bytes_max = 0;  // 1 to 8 MiB - header_bytes
  uint32_t queue_packets = 0;    // packets in flight a lane, and receives posted a lane
};

// What a transport may put before the header inside the header room (TCP: its length prefix).
inline constexpr size_t kLaneHeaderRoomBytes = 64;
inline constexpr size_t kMessageBytesMax = size_t{8} << 20;  // rdma_rxe's largest message

// A lane is used in one direction: the source's end sends, the target's end receives.
enum class LaneRole { kSender, kReceiver };

// Moves whole messages between two peers: reliable, in order within the lane, bounded. The
// calls of the other role take nothing and return nothing.
//
// Ownership: a Buffer belongs to exactly one side of the contract. Send() and PostReceives() take
//            it, PollSent() and PollReceived() give it back.
// Threads:   single-threaded: the thread that made the Lane uses it, or the one that it was handed
//            to before its first use there.
// Blocking:  no call blocks, allocates or logs. Progress is made in PollSent and PollReceived, and
//            for lanes over io_uring while their IoRing waits.
// Errors:    the first failure is final. From then on status() reports it, Send() and
//            PostReceives() take nothing. Messages that had arrived whole still come from
//            PollReceived(), and every Buffer that was to be sent from PollSent(). Buffers that
//            waited for data are freed with the lane, which may be destroyed once quiescent().
class Lane {
 public:
  virtual ~Lane() = default;  // REQUIRES: quiescent()

  // Takes a prefix of `packets` and returns its length; those elements are left empty. Less than
  // packets.size() means that the queue is full or broken. The header is in place in each Buffer
  // and payload_bytes() is set.
  [[nodiscard]] virtual size_t Send(absl::Span<Buffer> packets) = 0;

  // Moves up to sent.size() Buffers that the transport is done with into `sent`, in the order of
  // sending; returns how many. Done means "may be reused", not "the peer has it".
  [[nodiscard]] virtual size_t PollSent(absl::Span<Buffer> sent) = 0;

  // Takes a prefix of the empty `buffers` to receive into; returns its length. REQUIRES: all from
  // the arena that the lane was made with.
  [[nodiscard]] virtual size_t PostReceives(absl::Span<Buffer> buffers) = 0;
  // How many more Buffers PostReceives would take now.
  virtual size_t receives_wanted() const = 0;

  // Moves up to received.size() messages into `received`, in order, payload_bytes() set; returns
  // how many. The header bytes are the peer's and unchecked; only the message's length has been
  // checked against the limits.
  [[nodiscard]] virtual size_t PollReceived(absl::Span<Buffer> received) = 0;

  // Begins to shut the lane down: nothing more is sent or received. Buffers come back as after a
  // failure, once the kernel or the NIC has let go of them. status() becomes Cancelled if it was
  // OK. Idempotent.
  virtual void Close() = 0;
  // True once no kernel or NIC holds a Buffer of this lane: it may then be destroyed (which frees
  // the Buffers that it still has). After Close() this comes true within a few polls.
  virtual bool quiescent() const = 0;

  // The peer has closed its end between two messages. Not an error: the engine knows whether the
  // stream was complete. A sending lane notices too; to send on it then is an error.
  virtual bool peer_closed() const = 0;

  // A TCP connection, which whoever is on its way can read; not a queue pair.
  virtual bool is_tcp() const { return false; }

  virtual const absl::Status& status() const = 0;
  // "tcp 10.0.0.1:7471", "verbs mlx5_0/1 qp 0x11": for messages.
  virtual const std::string& name() const = 0;

  // An fd that becomes readable when the lane needs a Poll although its IoRing has seen nothing
  // (verbs: the completion channel, armed by ArmWakeup), or -1.
  virtual int wakeup_fd() const { return -1; }
  // Asks for the next completion to make wakeup_fd() readable; at a receiver, the next that ends a
  // burst, or a failure: messages before that may wait. Poll once more after it, before sleeping: a
  // completion may have come just before. And poll now and then, however silent the fd: not every
  // device tells of every failure. Acknowledges earlier events.
  virtual void ArmWakeup() {}
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_LANE_H_
