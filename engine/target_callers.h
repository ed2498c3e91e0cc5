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

namespace godwit {

// Hears them all at once, so that none that is silent holds up the next. A Godwit's first message
// comes right behind its preface: who has to make room for a newer one is the oldest.
//
// Ownership: owns the connections; borrows the rendezvous.
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

  TargetCallers(Rendezvous& rendezvous, Note note)
      : rendezvous_(rendezvous), note_(std::move(note)) {}

  void AddPollFds(std::vector<pollfd>& fds) const;
  // The next one that has said something, if any.
  absl::StatusOr<std::optional<Call>> Next();
  // With a note.
  void TurnAway(const ControlChannel& channel, absl::string_view why) const;
  // All that are still silent.
  void TurnAllAway(absl::string_view why);

  static constexpr size_t kCallersMax = 8;
  static constexpr std::chrono::seconds kTimeout{2};

 private:
  struct Caller {
    std::unique_ptr<ControlChannel> channel;
    Clock::Duration came_at{0};
  };

  // Whether there was one.
  absl::StatusOr<bool> TakeArrival();
  std::optional<Call> Hear();

  Rendezvous& rendezvous_;
  const Note note_;
  std::list<Caller> callers_;  // at most kCallersMax, oldest first
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_TARGET_CALLERS_H_
