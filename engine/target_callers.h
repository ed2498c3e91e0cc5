// New connections to a target, until each has said its first message.
#ifndef GODWIT_ENGINE_TARGET_CALLERS_H_
#define GODWIT_ENGINE_TARGET_CALLERS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <poll.h>

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"
#include "transport/rendezvous.h"
#include "transport/tls/tls_context.h"

namespace godwit {

// Hears them all at once, so that none that is silent holds up the next. A Godwit's first message
// comes right behind its preface, or behind the TLS handshake: who has to make room for a newer one
// is chosen by WhoMakesRoom().
//
// Ownership: owns the connections; borrows the rendezvous and the TLS context.
// Threads:   single-threaded.
// Blocking:  never; sleep in poll(2) on AddPollFds() between calls of Next().
// Errors:    who says nothing in time, or nonsense, is turned away with a note. Of Next() as of
//            Rendezvous::Next(): a peer of another version.
class TargetCallers {
 public:
  struct Call {
    std::unique_ptr<ControlChannel> channel;
    control::ControlMessage first;
    Clock::Duration came_at{0};
  };
  using Note = std::function<void(absl::string_view line)>;
  // Whether somebody else waits for that lane, and has taken it.
  using TakeLane = std::function<bool(Rendezvous::Arrival& lane)>;

  // With `tls` each of them has to prove who it is, and that it is `peer_name` unless that is "".
  TargetCallers(Rendezvous& rendezvous, Note note, const TlsContext* tls, std::string peer_name,
                TakeLane take_lane)
      : rendezvous_(rendezvous),
        note_(std::move(note)),
        tls_(tls),
        peer_name_(std::move(peer_name)),
        take_lane_(std::move(take_lane)) {}

  void AddPollFds(std::vector<pollfd>& fds) const;
  // The next one that has said something, if any.
  absl::StatusOr<std::optional<Call>> Next();
  // With a note.
  void TurnAway(const ControlChannel& channel, absl::string_view why) const;
  // All that are still silent.
  void TurnAllAway(absl::string_view why);

  // Each holds at most 64 KiB of handshake or message, a read of 16 KiB, and OpenSSL's buffers: all
  // of them less than 24 MiB.
  static constexpr size_t kCallersMax = 128;
  // Taken in one call of Next(), so that who calls it is soon back among any number of strangers.
  static constexpr size_t kArrivalsARound = 16;
  static constexpr std::chrono::seconds kTimeout{2};

 private:
  struct Caller {
    std::unique_ptr<ControlChannel> channel;
    Clock::Duration came_at{0};
    size_t network_number = 0;
    Clock::Duration stepped{0};  // came, or stood better than before

    bool belongs() const { return channel->authenticated(); }
    size_t network() const { return network_number; }
    Clock::Duration stepped_at() const { return stepped; }
    ControlChannel::Standing shown() const { return channel->standing(); }
  };

  // Whether there was one.
  absl::StatusOr<bool> TakeArrival();
  void MakeRoom();
  std::optional<Call> Hear();

  Rendezvous& rendezvous_;
  const Note note_;
  const TlsContext* const tls_;  // null: plain
  const std::string peer_name_;
  const TakeLane take_lane_;
  std::list<Caller> callers_;  // at most kCallersMax, oldest first
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_TARGET_CALLERS_H_
