#include "engine/target_callers.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "transport/make_room.h"

namespace godwit {

void TargetCallers::AddPollFds(std::vector<pollfd>& fds) const {
  rendezvous_.AddPollFds(fds);
  for (const Caller& caller : callers_) {
    const int writable = caller.channel->wants_write() ? POLLOUT : 0;
    fds.push_back({caller.channel->fd(), static_cast<short>(POLLIN | writable), 0});
  }
}

void TargetCallers::TurnAway(const ControlChannel& channel, absl::string_view why) const {
  note_(absl::StrCat("turned away ", channel.peer(), ": ", why));
}

void TargetCallers::TurnAllAway(absl::string_view why) {
  for (const Caller& caller : callers_) TurnAway(*caller.channel, why);
  callers_.clear();
}

absl::StatusOr<std::optional<TargetCallers::Call>> TargetCallers::Next() {
  // Not more at once, so that who calls hears of a Cancel() among any number of strangers: those
  // that are left keep their fds readable.
  for (size_t arrivals = 0; arrivals < kArrivalsARound; ++arrivals) {
    // Before the next arrival, which could cost the oldest its place.
    if (std::optional<Call> call = Hear(); call.has_value()) return call;
    GODWIT_ASSIGN_OR_RETURN(const bool arrived, TakeArrival());
    if (!arrived) return std::nullopt;
  }
  return Hear();
}

absl::StatusOr<bool> TargetCallers::TakeArrival() {
  GODWIT_ASSIGN_OR_RETURN(std::optional<Rendezvous::Arrival> arrival, rendezvous_.Next());
  if (!arrival.has_value()) return false;
  if (arrival->kind != PrefaceKind::kControl) {
    if (!take_lane_(*arrival)) {
      note_(absl::StrCat("turned away ", arrival->peer, ": a lane of no session here"));
    }
    return true;
  }
  std::unique_ptr<TlsStream> tls;
  if (tls_ != nullptr) {
    GODWIT_ASSIGN_OR_RETURN(tls, tls_->NewStream(peer_name_));
  }
  if (callers_.size() == kCallersMax) MakeRoom();
  Caller caller;
  caller.channel = std::make_unique<ControlChannel>(std::move(arrival->socket), arrival->peer,
                                                    /*expect_preface=*/false, std::move(tls));
  caller.network_number = NetworkOf(arrival->peer);
  caller.came_at = caller.stepped = Clock::Steady().Now();
  (void)caller.channel->Flush();  // our preface; what fails here is found by Receive()
  callers_.push_back(std::move(caller));
  return true;
}

void TargetCallers::MakeRoom() {
  const auto goes = WhoMakesRoom(callers_.begin(), callers_.end(), Clock::Steady().Now());
  TurnAway(*goes->channel, "too many have come, and this one makes room");
  callers_.erase(goes);
}

std::optional<TargetCallers::Call> TargetCallers::Hear() {
  for (auto caller = callers_.begin(); caller != callers_.end();) {
    const auto stood = caller->shown();
    auto message = caller->channel->Receive();
    if (caller->shown() > stood) caller->stepped = Clock::Steady().Now();
    if (message.ok() && message->has_value()) {
      Call call = {std::move(caller->channel), **std::move(message), caller->came_at};
      callers_.erase(caller);
      return call;
    }
    if (!message.ok()) {
      // (It begins with whose it is, which TurnAway() says, too.)
      TurnAway(*caller->channel,
               absl::StripPrefix(message.status().message(),
                                 absl::StrCat("peer ", caller->channel->peer(), ": ")));
    } else if (Clock::Steady().Now() - caller->came_at > kTimeout) {
      TurnAway(*caller->channel, absl::StrCat("it said nothing in ", kTimeout.count(), " s"));
    } else {
      ++caller;
      continue;
    }
    caller = callers_.erase(caller);
  }
  return std::nullopt;
}

}  // namespace godwit
