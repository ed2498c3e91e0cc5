// The source's end of queue pairs that are made again: docs/lanes.md.

#include <absl/strings/str_cat.h>

#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/source_impl.h"

namespace godwit {
namespace {

// A target answers as soon as the lane before has let go of its buffers.
constexpr std::chrono::seconds kAnswerTimeout{10};

}  // namespace

// Makes and offers those that are due.
absl::Status SourceSession::Impl::OfferQueuePairs() {
  const Clock::Duration now = Clock::Steady().Now();
  for (uint32_t lane = 0; lane < queue_pair_attempts_.size(); ++lane) {
    QueuePairAttempt& attempt = queue_pair_attempts_[lane];
    if (attempt.generation == 0 || now < attempt.due) continue;
    if (attempt.lane != nullptr) {
      GODWIT_RETURN_IF_ERROR(TryQueuePairAgain(
          lane, absl::DeadlineExceededError("the target does not answer for a new queue pair")));
      continue;
    }
    auto made = rdma_ports_->MakeLane(lane, attempt.generation, LaneRole::kSender, lane_limits_);
    if (!made.ok()) {
      GODWIT_RETURN_IF_ERROR(TryQueuePairAgain(lane, made.status()));
      continue;
    }
    attempt.lane = *std::move(made);
    attempt.due = now + kAnswerTimeout;
    control::ControlMessage message;
    control::RemakeLane& remake = *message.mutable_remake_lane();
    remake.set_lane(lane);
    remake.set_generation(attempt.generation);
    *remake.mutable_verbs() = ToProto(attempt.lane->local());
    GODWIT_RETURN_IF_ERROR(channel_->Send(message));
  }
  return absl::OkStatus();
}

// The target has its end of one that was offered. Of one that nobody waits for any more nothing is
// to be done: a later generation takes its place there.
absl::Status SourceSession::Impl::TakeRemade(const control::LaneRemade& remade) {
  if (remade.lane() >= queue_pair_attempts_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the target has made lane ", remade.lane(), " again, there is none"));
  }
  QueuePairAttempt& attempt = queue_pair_attempts_[remade.lane()];
  if (attempt.lane == nullptr || attempt.generation != remade.generation()) return absl::OkStatus();
  absl::StatusOr<VerbsEndpoint> theirs = FromProto(remade.verbs());
  const absl::Status connected = theirs.ok() ? attempt.lane->Connect(*theirs) : theirs.status();
  if (!connected.ok()) return TryQueuePairAgain(remade.lane(), connected);
  QueuePairAttempt made = std::exchange(attempt, {});
  lane_lives_[remade.lane()].handed_at = Clock::Steady().Now();
  worker_->RemakeLane({remade.lane(), made.generation, UniqueFd(), std::move(made.lane), {}});
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::TryQueuePairAgain(uint32_t lane, const absl::Status& why) {
  queue_pair_attempts_[lane] = {};
  last_lane_error_ = Annotate(why, absl::StrCat("lane ", lane));
  return AskForLane(lane);
}

}  // namespace godwit
