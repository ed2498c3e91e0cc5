// The target's front door: tells control channels, lanes and strangers apart.
#ifndef GODWIT_TRANSPORT_RENDEZVOUS_H_
#define GODWIT_TRANSPORT_RENDEZVOUS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <poll.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "godwit/unique_fd.h"
#include "transport/control_channel.h"
#include "transport/lane_proof.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {

// Listens, takes connections, and reads the preface of each without waiting for any one of them.
// Where all places are taken one that has said nothing goes before one that has, and a lane that
// names the session last (make_room.h).
//
// Ownership: owns the listening socket and connections whose preface is not complete.
// Threads:   single-threaded.
// Blocking:  never; sleep in poll(2) on AddPollFds() between calls of Next().
// Errors:    a stranger, one that is too slow and one too many are turned away with a note. Only a
//            peer that speaks another version of our protocol is an error.
class Rendezvous {
 public:
  struct Arrival {
    UniqueFd socket;
    std::string peer;
    PrefaceKind kind = PrefaceKind::kControl;
    LaneHello lane;  // where kind is kLane
  };
  using Note = std::function<void(const std::string& line)>;

  // `trust`: how control channels here are secured; who wants it otherwise is a stranger.
  static absl::StatusOr<std::unique_ptr<Rendezvous>> Listen(const TcpAddress& address, Note note,
                                                            TrustKind trust = TrustKind::kPlain,
                                                            const Clock& clock = Clock::Steady());

  uint16_t port() const { return port_; }
  int listener() const { return listener_.get(); }
  void AddPollFds(std::vector<pollfd>& fds) const;

  // From now on lanes of that session keep their places before others, and those of another are
  // turned away: to name it is no proof of anything.
  void PreferSession(const std::string& session_id) { session_id_ = session_id; }
  // From now on a lane has to prove that it is of the session whose key this is.
  void RequireLaneProof(const TrafficKey& key) { lane_key_ = key; }

  // Takes what has come; the next connection whose preface is complete, if any.
  absl::StatusOr<std::optional<Arrival>> Next();

  // Enough for a session's lanes to arrive together, few enough that strangers cost nothing.
  static constexpr size_t kHalfOpenMax = 128;

 private:
  struct HalfOpen {
    UniqueFd socket;
    std::string peer_text;
    Clock::Duration deadline;
    size_t network_number = 0;
    Clock::Duration stepped{0};  // connected, or said its first byte
    std::array<char, kLanePrefaceBytes + kLaneProofBytes> bytes;
    size_t bytes_have = 0;
    size_t bytes_wanted = kControlPrefaceBytes;
    bool is_lane = false;
    std::optional<LaneChallenge> challenge;  // of a lane that has to prove itself
    bool names_session = false;              // the one that is preferred

    LaneHello Lane() const;
    const std::string& peer() const { return peer_text; }
    bool belongs() const { return names_session; }
    size_t network() const { return network_number; }
    Clock::Duration stepped_at() const { return stepped; }
    bool shown() const { return bytes_have > 0; }
  };
  enum class ReadResult { kMore, kComplete, kGone };

  Rendezvous(UniqueFd listener, uint16_t port, Note note, TrustKind trust, const Clock& clock)
      : listener_(std::move(listener)),
        port_(port),
        note_(std::move(note)),
        trust_(trust),
        clock_(clock) {}
  void AcceptSome();
  absl::StatusOr<std::optional<Arrival>> ReadAll();
  void TellOurPreface(const HalfOpen& connection) const;
  // What to do with a connection that has said as much as it was to say.
  ReadResult TakePreface(HalfOpen& connection, absl::Status& version_mismatch);
  ReadResult TakeLane(HalfOpen& connection);
  ReadResult ReadPreface(HalfOpen& connection, absl::Status& version_mismatch);

  const UniqueFd listener_;
  const uint16_t port_;
  const Note note_;
  const TrustKind trust_;
  const Clock& clock_;
  std::string session_id_;  // "": none yet
  std::optional<TrafficKey> lane_key_;
  std::list<HalfOpen> half_open_;  // at most kHalfOpenMax, oldest first
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_RENDEZVOUS_H_
