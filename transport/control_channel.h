// The control channel: protobuf messages over one TCP connection.
#ifndef GODWIT_TRANSPORT_CONTROL_CHANNEL_H_
#define GODWIT_TRANSPORT_CONTROL_CHANNEL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "godwit/unique_fd.h"

namespace godwit {

namespace control {
class ControlMessage;
}

inline constexpr uint16_t kControlProtocolVersion = 1;
inline constexpr size_t kControlPrefaceBytes = 8;  // "GODWIT", be16 version
inline constexpr size_t kLanePrefaceBytes = 28;    // "GODWITLN", session id, be16 generation, lane
inline constexpr size_t kSessionIdBytes = 16;
inline constexpr size_t kControlMessageBytesMax = 64 * 1024;
inline constexpr std::chrono::seconds kControlPingInterval{1};
inline constexpr std::chrono::seconds kControlSilenceMax{8};
inline constexpr std::chrono::milliseconds kProbeInterval{5};
inline constexpr uint64_t kProbesNeeded = 3;
inline constexpr size_t kProbesKept = 5;

std::array<char, kControlPrefaceBytes> ControlPreface();
// `generation` counts how often that lane was made before.
std::array<char, kLanePrefaceBytes> LanePreface(const std::string& session_id, uint16_t lane,
                                                uint16_t generation);
// What the first 8 bytes of a connection are. InvalidArgument: a stranger. FailedPrecondition: a
// peer of another version, both named.
enum class PrefaceKind { kControl, kLane };
absl::StatusOr<PrefaceKind> ClassifyPreface(const char* first_8_bytes);
// REQUIRES: ClassifyPreface said kLane
struct LaneHello {
  std::string session_id;
  uint16_t lane = 0;
  uint16_t generation = 0;
};
LaneHello DecodeLanePreface(const std::array<char, kLanePrefaceBytes>& bytes);

// Ownership: owns the socket.
// Threads:   single-threaded.
// Blocking:  never: Send() queues, Flush() and Receive() do what the socket takes or has now.
// Errors:    the first is final and comes back from every later call. Unavailable: the peer is
//            gone or silent. InvalidArgument: it sent what is no message.
class ControlChannel {
 public:
  // `peer` is for messages. Sends our preface; with `expect_preface` the peer's is read and checked
  // before the first message. (A target has read it already, to tell friend from stranger.)
  ControlChannel(UniqueFd socket, std::string peer, bool expect_preface,
                 const Clock& clock = Clock::Steady());

  absl::Status Send(const control::ControlMessage& message);
  absl::Status Flush();
  // The next message but Ping, or nothing now.
  absl::StatusOr<std::optional<control::ControlMessage>> Receive();

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

  // Since when nothing has come from the peer.
  Clock::Duration last_received() const { return last_received_; }

  int fd() const { return socket_.get(); }
  // The peer has closed its end, and all that it sent before has come.
  bool closed_in_order() const { return end_of_stream_ && inbox_.empty(); }
  bool wants_write() const { return !outbox_.empty(); }
  const std::string& peer() const { return peer_; }

 private:
  absl::Status Fail(absl::Status status);
  absl::Status TakePing(uint64_t question, uint64_t answer);
  absl::Status ReadSome();

  UniqueFd socket_;
  const std::string peer_;
  const Clock& clock_;
  bool preface_expected_;
  std::string inbox_;   // at most a message and a read
  std::string outbox_;  // at most kOutboxBytesMax
  Clock::Duration last_sent_;
  Clock::Duration last_received_;
  uint64_t probes_ = 0;  // sent
  bool probe_out_ = false;
  Clock::Duration probed_at_{0};
  std::array<Clock::Duration, kProbesKept> probes_took_{};  // the last ones, in a circle
  size_t answered_ = 0;
  bool peer_closed_ = false;
  bool end_of_stream_ = false;  // closed by FIN, not by a reset
  absl::Status status_;
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_CONTROL_CHANNEL_H_
