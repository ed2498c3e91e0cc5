// The source's lanes while they come and go: docs/lanes.md.

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/source_impl.h"

namespace godwit {
namespace {

// A lane that was up for that long had nothing to do with the trouble before.
constexpr std::chrono::seconds kTroubleOver{1};
// A target says soon what it has received, whatever its devices do; but for a driver that its
// worker writes to (docs/architecture.md), and which takes as long.
constexpr std::chrono::seconds kReceiptTimeout{3};
// The worker waits for a full lane where that is the fastest. One that is late by so much it looks
// at again: others may be worth more now, and nothing else may wake it.
constexpr std::chrono::milliseconds kReceiptLate{100};
// It says something every second.
constexpr std::chrono::seconds kTargetLives{2};
// A worker brings up a lane when the one before has given back its buffers.
constexpr std::chrono::seconds kHandingOver{1};
// Before a lane is made again: nothing the first time, then that, doubling.
constexpr std::chrono::milliseconds kRemakePause{20};
constexpr uint32_t kRemakeDoublings = 6;

}  // namespace

// Tells of lanes that went down or came up, and sees to it that they are made again. An error once
// there has been none for too long.
absl::Status SourceSession::Impl::FollowLanes() {
  if (rdma_ports_ != nullptr) {
    rdma_ports_->Follow([this](const std::string& line) { observer_.OnNote(line); },
                        [this](size_t lane, uint16_t generation, const absl::Status& why) {
                          worker_->DropLane(lane, generation, why);
                        });
  }
  for (const LaneChange& change : worker_->TakeLaneChanges()) {
    observer_.OnLane({change.lane, change.up, change.why});
    LaneLife& life = lane_lives_[change.lane];
    life.up = change.up;
    life.generation = change.generation;
    const Clock::Duration at = Clock::Steady().Now();
    if (!change.up && life.down_since.count() == 0) life.down_since = at;
    if (change.up) {
      const Clock::Duration down = at - std::exchange(life.down_since, Clock::Duration(0));
      life.down_time += down;
      life.down_longest = std::max(life.down_longest, down);
      ++life.remade;
      life.handed_at = Clock::Duration(0);
      life.up_since = at;
      continue;
    }
    last_lane_error_ = change.why;
    if (change.generation != life.asked) continue;  // its successor is under way
    life.handed_at = Clock::Duration(0);
    GODWIT_RETURN_IF_ERROR(AskForLane(change.lane));
  }
  DropSilentLanes();
  const Clock::Duration now = Clock::Steady().Now();
  const auto is_up = [now](const LaneLife& life) {
    return life.up || (life.handed_at.count() > 0 && now - life.handed_at < kHandingOver);
  };
  if (std::any_of(lane_lives_.begin(), lane_lives_.end(), is_up)) {
    no_lanes_since_ = Clock::Duration(0);
    return OfferQueuePairs();
  }
  if (no_lanes_since_.count() == 0) {
    no_lanes_since_ = now;
    const bool falls_back = transport_ == TransportKind::kVerbs && !fell_back_;
    observer_.OnNote(absl::StrCat(falls_back
                                      ? "no queue pair is left: TCP lanes take their places, trying"
                                      : "no lane is left: making them again",
                                  " for up to ", options_.reconnect_timeout.count(), " ms"));
    GODWIT_RETURN_IF_ERROR(FallBackToTcp());
  }
  if (now - no_lanes_since_ <= options_.reconnect_timeout) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "all ", options_.lanes, " lanes have been down for ", options_.reconnect_timeout.count(),
      " ms (", last_lane_error_.message(), "): is the network between the two hosts whole?"));
}

// A lane that swallows what it gets, without an error that would end it: cut off in silence, or
// with its framing damaged, so that the target waits for the rest of a message that never was.
void SourceSession::Impl::DropSilentLanes() {
  const Clock::Duration now = Clock::Steady().Now();
  // A target that is silent altogether is the control channel's to notice.
  if (now - channel_->last_received() > kTargetLives) return;
  bool late = false;
  for (uint32_t i = 0; i < options_.lanes; ++i) {
    const Clock::Duration since(
        worker_->lane_counters(i).waits_since.load(std::memory_order_relaxed));
    if (!lane_lives_[i].up || since.count() == 0) continue;
    late |= now - since > kReceiptLate;
    if (now - since < kReceiptTimeout) continue;
    worker_->DropLane(i, lane_lives_[i].generation,
                      absl::DeadlineExceededError(
                          absl::StrCat("the target has receipted nothing on it for ",
                                       std::chrono::milliseconds(kReceiptTimeout).count(), " ms")));
  }
  if (late) worker_->Wake();
}

absl::Status SourceSession::Impl::AskForLane(uint32_t lane) {
  LaneLife& life = lane_lives_[lane];
  if (life.asked == kLaneGenerationMax) return absl::OkStatus();
  ++life.asked;
  const Clock::Duration now = Clock::Steady().Now();
  const Clock::Duration up_since = std::exchange(life.up_since, Clock::Duration(0));
  if (up_since.count() > 0 && now - up_since > kTroubleOver) life.troubles = 0;
  const Clock::Duration pause =
      life.troubles == 0 ? Clock::Duration(0)
                         : kRemakePause * (1 << std::min(life.troubles - 1, kRemakeDoublings));
  ++life.troubles;
  if (transport_ == TransportKind::kVerbs && !fell_back_) {
    queue_pair_attempts_[lane] = {life.asked, now + pause, nullptr};
    return absl::OkStatus();
  }
  return AskForTcpLane(lane, life.asked, pause);
}

absl::Status SourceSession::Impl::AskForTcpLane(uint32_t lane, uint16_t generation,
                                                Clock::Duration pause) {
  if (lane_maker_ == nullptr) {
    GODWIT_ASSIGN_OR_RETURN(
        lane_maker_,
        LaneMaker::Make(lane_address_, LaneGreeting(session_id_, lane_key_),
                        [this](size_t made, uint16_t its_generation, UniqueFd socket) {
                          worker_->RemakeLane({made, its_generation, std::move(socket), nullptr,
                                               absl::StrCat("tcp ", options_.to)});
                        }));
  }
  lane_maker_->Ask(lane, generation, pause);
  return absl::OkStatus();
}

// For good: what has just killed all queue pairs is not tried out with a VM that stands still.
absl::Status SourceSession::Impl::FallBackToTcp() {
  if (transport_ != TransportKind::kVerbs || fell_back_) return absl::OkStatus();
  fell_back_ = true;
  StopMakingLanes();
  for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
    lane_lives_[lane].troubles = 0;  // they were queue pairs'
    GODWIT_RETURN_IF_ERROR(AskForLane(lane));
  }
  return absl::OkStatus();
}

void SourceSession::Impl::StopMakingLanes() {
  lane_maker_.reset();
  for (QueuePairAttempt& attempt : queue_pair_attempts_) attempt = {};
}

bool SourceSession::Impl::OfLanes(const control::ControlMessage& message) {
  return message.has_receipts() || message.has_lane_down() || message.has_lane_remade();
}

// What the target says while frames flow. False: it is something else.
absl::StatusOr<bool> SourceSession::Impl::TakeFlow(const control::ControlMessage& message) {
  if (message.has_receipts()) {
    GODWIT_RETURN_IF_ERROR(TakeReceipts(message.receipts()));
    return true;
  }
  if (message.has_lane_remade()) {
    GODWIT_RETURN_IF_ERROR(TakeRemade(message.lane_remade()));
    KeepAlive();  // it may have waited for an address
    return true;
  }
  if (!message.has_lane_down()) return false;
  const control::LaneDown& down = message.lane_down();
  if (down.lane() >= options_.lanes || down.generation() > kLaneGenerationMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the target gives up lane ", down.lane(), ", there is none"));
  }
  const absl::Status why =
      absl::UnavailableError(absl::StrCat("the target gave it up: ", Printable(down.reason())));
  const auto generation = static_cast<uint16_t>(down.generation());
  if (generation > 0 && queue_pair_attempts_[down.lane()].generation == generation) {
    GODWIT_RETURN_IF_ERROR(TryQueuePairAgain(down.lane(), why));
  } else {
    worker_->DropLane(down.lane(), generation, why);
  }
  return true;
}

}  // namespace godwit
