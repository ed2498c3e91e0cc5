// How a TCP lane says whose it is, and proves it where the session's control channel is inside TLS:
// docs/wire-format.md, section 3.
#ifndef GODWIT_TRANSPORT_LANE_PROOF_H_
#define GODWIT_TRANSPORT_LANE_PROOF_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "transport/control_channel.h"
#include "transport/hmac.h"
#include "transport/tcp/tcp_socket.h"
#include "transport/tls/tls_stream.h"

namespace godwit {

// What the TLS exporter is asked for.
inline constexpr absl::string_view kLaneKeyLabel = "EXPORTER-godwit-lanes";
inline constexpr size_t kLaneChallengeBytes = 32;
inline constexpr size_t kLaneProofBytes = kHmacBytes;

using LaneChallenge = std::array<char, kLaneChallengeBytes>;
using LaneProof = Hmac;

// Of random bytes, so that what was said on another connection proves nothing on this one.
LaneChallenge NewLaneChallenge();
LaneProof ProveLane(const TrafficKey& key, const LaneChallenge& challenge, const LaneHello& lane);
// In the same time for every wrong one.
bool IsLaneProof(const char* proof, const TrafficKey& key, const LaneChallenge& challenge,
                 const LaneHello& lane);

// The source's part.
//
// Ownership: a copy of session id and key.
// Threads:   const: any.
// Blocking:  until `deadline`, or until `cancel_fd` (-1: none) is readable.
// Errors:    as ReadExactly() and WriteAll(), saying whose they are.
class LaneGreeting {
 public:
  // Without a key lanes say whose they are, and prove nothing.
  LaneGreeting(std::string session_id, std::optional<TrafficKey> key)
      : session_id_(std::move(session_id)), key_(key) {}

  bool proves() const { return key_.has_value(); }
  // The preface.
  absl::Status Announce(int socket, uint16_t lane, uint16_t generation, Deadline deadline) const;
  // Answers the target's challenge. REQUIRES: proves()
  absl::Status Prove(int socket, uint16_t lane, uint16_t generation, Deadline deadline,
                     int cancel_fd = -1) const;

 private:
  std::string session_id_;
  std::optional<TrafficKey> key_;
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_LANE_PROOF_H_
