// The control channel: protobuf messages over one TCP connection.
#ifndef GODWIT_TRANSPORT_CONTROL_CHANNEL_H_
#define GODWIT_TRANSPORT_CONTROL_CHANNEL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "godwit/trust.h"
#include "godwit/unique_fd.h"
#include "transport/tls/tls_stream.h"

namespace godwit {

namespace control {
class ControlMessage;
}

inline constexpr uint8_t kControlProtocolVersion = 1;
inline constexpr size_t kControlPrefaceBytes = 8;  // "GODWIT", trust, version
inline constexpr size_t kLanePrefaceBytes = 28;    // "GODWITLN", session id, be16 generation, lane
inline constexpr size_t kSessionIdBytes = 16;
inline constexpr size_t kControlMessageBytesMax = 64 * 1024;
// Where a message is parsed; a larger one allocates. Receipts of 64 lanes and 64 devices take some
// 3 KiB of it.
inline constexpr size_t kControlParseBytes = 4096;
inline constexpr std::chrono::seconds kControlPingInterval{1};
inline constexpr std::chrono::seconds kControlSilenceMax{8};
inline constexpr std::chrono::milliseconds kProbeInterval{5};
inline constexpr uint64_t kProbesNeeded = 3;
inline constexpr size_t kProbesKept = 5;

std::array<char, kControlPrefaceBytes> ControlPreface(TrustKind trust = TrustKind::kPlain);
// `generation` counts how often that lane was made before.
std::array<char, kLanePrefaceBytes> LanePreface(const std::string& session_id, uint16_t lane,
                                                uint16_t generation);
// What the first 8 bytes of a connection are. InvalidArgument: a stranger. FailedPrecondition: a
// peer of another version, both named. Unauthenticated: it secures its sessions in another way than
// `ours`.
enum class PrefaceKind { kControl, kLane };
absl::StatusOr<PrefaceKind> ClassifyPreface(const char* first_8_bytes,
                                            TrustKind ours = TrustKind::kPlain);
// REQUIRES: ClassifyPreface said kLane
struct LaneHello {
  std::string session_id;
  uint16_t lane = 0;
  uint16_t generation = 0;
};
LaneHello DecodeLanePreface(const std::array<char, kLanePrefaceBytes>& bytes);

// Plain, or inside TLS: then nothing is sent, or believed, before the peer has proven who it is.
//
// Ownership: owns the socket.
// Threads:   single-threaded.
// Blocking:  never: Send() queues; Flush(), Next() and Receive() do what the socket has now.
// Errors:    the first is final and comes back from every later call. Unavailable: the peer is
//            gone or silent. InvalidArgument: it sent what is no message. Unauthenticated: one side
//            does not believe the other.
class ControlChannel {
 public:
  // `peer` is for messages. Sends our preface; with `expect_preface` the peer's is read and checked
  // before the first message. (A target has read it already, to tell friend from stranger.)
  ControlChannel(UniqueFd socket, std::string peer, bool expect_preface,
                 const Clock& clock = Clock::Steady())
      : ControlChannel(std::move(socket), std::move(peer), expect_preface, nullptr, clock) {}
  // The same inside `tls`, unless that is null.
  ControlChannel(UniqueFd socket, std::string peer, bool expect_preface,
                 std::unique_ptr<TlsStream> tls, const Clock& clock = Clock::Steady());

  ~ControlChannel();

  absl::Status Send(const control::ControlMessage& message);
  absl::Status Flush();
  // The next message but Ping, or null: nothing now. It stays until the next Next() or Receive().
  // Parsed without an allocation if there is room for it in kControlParseBytes, as for Receipts.
  absl::StatusOr<const control::ControlMessage*> Next();
  // The same to keep.
  absl::StatusOr<std::optional<control::ControlMessage>> Receive();

  // Nothing more will be sent: the peer hears of it behind what was. Does nothing while that still
  // waits for the socket.
  void EndSending();
  // Whether the peer has proven who it is. Never, of a plain channel.
  bool authenticated() const { return tls_ != nullptr && tls_->established(); }
  // How far a peer has come that has still to prove who it is.
  enum class Standing { kSilent, kSpoke, kInHandshake, kAuthenticated };
  Standing standing() const {
    if (authenticated()) return Standing::kAuthenticated;
    if (tls_ != nullptr && tls_->answered()) return Standing::kInHandshake;
    return heard_ ? Standing::kSpoke : Standing::kSilent;
  }
  // A key that only this connection's two ends can know. REQUIRES: authenticated()
  absl::StatusOr<TrafficKey> ExportKey(absl::string_view label, absl::string_view context) const {
    return tls_->ExportKey(label, context);
  }

  // Call at least a few times a second: sends Ping when it is due and notices a silent peer.
  absl::Status Tick();

  // Asks the peer for an answer, which times the way through both sides' threads and back. Does
  // nothing while the last one is out or before kProbeInterval is over.
  absl::Status Probe();
  // kProbesNeeded have been answered.
  bool probed() const { return probes_ - (probe_out_ ? 1 : 0) >= kProbesNeeded; }
  // Not enough have been answered, and none is out: Probe() wants to be called in kProbeInterval.
  bool probe_due() const { return probes_ > 0 && !probe_out_ && !probed(); }
  // The median of the last kProbesKept probes: what it takes when the threads that a message wakes
  // have slept, as they do in a handover. Before the first answer the connection's smoothed
  // round-trip time, as the kernel has it (TCP_INFO); 0 where it has none.
  Clock::Duration round_trip() const;

  // The peer has closed the connection, or it broke: not that it was silent.
  bool hung_up() const { return hung_up_; }

  // Since when nothing has come from the peer.
  Clock::Duration last_received() const { return last_received_; }

  int fd() const { return socket_.get(); }
  // The peer has closed its end, and all that it sent before has come. (Inside TLS it has to say
  // so: anybody on the way can close a connection.)
  bool closed_in_order() const { return end_of_stream_ && inbox_.empty(); }
  bool wants_write() const { return !outbox_.empty(); }
  const std::string& peer() const { return peer_; }

 private:
  absl::Status Fail(absl::Status status);
  struct Parsed;  // the message that Next() returned last
  absl::Status TakePing(uint64_t question, uint64_t answer);
  absl::Status ReadSome();
  absl::Status TakeWire(absl::string_view bytes);
  absl::Status TakePreface(absl::string_view& bytes);
  absl::Status SealWaiting();
  absl::Status PeerClosed();

  UniqueFd socket_;
  const std::string peer_;
  const Clock& clock_;
  const std::unique_ptr<TlsStream> tls_;  // null: plain
  bool preface_expected_;
  std::string preface_;  // of the peer, so far
  std::string inbox_;    // messages: at most one and a read
  const std::unique_ptr<Parsed> parsed_;
  std::string waiting_;  // with TLS: messages that wait for the handshake
  std::string outbox_;   // for the socket; with waiting_ at most kOutboxBytesMax
  Clock::Duration last_sent_;
  Clock::Duration last_received_;
  bool heard_ = false;   // anything
  uint64_t probes_ = 0;  // sent
  bool probe_out_ = false;
  Clock::Duration probed_at_{0};
  std::array<Clock::Duration, kProbesKept> probes_took_{};  // the last ones, in a circle
  size_t answered_ = 0;
  bool peer_closed_ = false;
  bool hung_up_ = false;
  bool end_of_stream_ = false;  // closed in order, not by a reset
  absl::Status status_;
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_CONTROL_CHANNEL_H_
