// The target's end of queue pairs that are made again: docs/lanes.md.

#include <absl/strings/str_cat.h>

#include <utility>

#include "base/status_macros.h"
#include "engine/lane_events.h"
#include "engine/packet.h"
#include "engine/target_impl.h"

namespace godwit {

// False: it is something else, or a session without queue pairs.
absl::StatusOr<bool> TargetSession::Impl::TakeRemakeLane(const control::ControlMessage& message) {
  if (!message.has_remake_lane() || transport_ != TransportKind::kVerbs) return false;
  const control::RemakeLane& remake = message.remake_lane();
  const uint32_t lane = remake.lane();
  if (lane >= lane_count_ || remake.generation() > kLaneGenerationMax) {
    return absl::InvalidArgumentError(absl::StrCat("the source makes lane ", lane,
                                                   " again, for the ", remake.generation(),
                                                   ". time: there is none"));
  }
  const auto generation = static_cast<uint16_t>(remake.generation());
  if (generation <= lane_generations_[lane]) return true;  // a TCP lane has overtaken it
  absl::StatusOr<std::unique_ptr<VerbsLane>> made = MakeQueuePair(lane, generation, remake.verbs());
  if (!made.ok()) {
    GODWIT_RETURN_IF_ERROR(SendLaneDown(lane, generation, made.status()));
    return true;
  }
  lane_generations_[lane] = generation;
  *remade_[lane].mutable_verbs() = ToProto((*made)->local());
  remade_[lane].set_lane(lane);
  remade_[lane].set_generation(generation);
  worker_->RemakeLane({lane, generation, UniqueFd(), *std::move(made), {}});
  return true;
}

absl::StatusOr<std::unique_ptr<VerbsLane>> TargetSession::Impl::MakeQueuePair(
    uint32_t lane, uint16_t generation, const control::LaneSetup::Verbs& theirs) {
  GODWIT_ASSIGN_OR_RETURN(const VerbsEndpoint endpoint, FromProto(theirs));
  GODWIT_ASSIGN_OR_RETURN(
      auto made, rdma_ports_->MakeLane(lane, generation, LaneRole::kReceiver, lane_limits_));
  GODWIT_RETURN_IF_ERROR(made->Connect(endpoint));
  return made;
}

// Receives are posted on that lane: if it is a queue pair, the source waits for word of it.
absl::Status TargetSession::Impl::TellRemade(const LaneChange& change) {
  control::LaneRemade& remade = remade_[change.lane];
  if (remade.generation() != change.generation) return absl::OkStatus();
  control::ControlMessage message;
  *message.mutable_lane_remade() = std::move(remade);
  remade.Clear();
  return channel_->Send(message);
}

absl::Status TargetSession::Impl::SendLaneDown(uint32_t lane, uint16_t generation,
                                               const absl::Status& why) {
  control::ControlMessage message;
  control::LaneDown& down = *message.mutable_lane_down();
  down.set_lane(lane);
  down.set_generation(generation);
  down.set_reason(Printable(why.message()));
  return channel_->Send(message);
}

}  // namespace godwit
