// The target's side of the handover: docs/handover.md.

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/device_steps.h"
#include "engine/target_impl.h"

namespace godwit {
absl::Status TargetSession::Impl::HandOver() {
  SetPhase(SessionPhase::kHandingOver);
  GODWIT_RETURN_IF_ERROR(AwaitCommit());
  committed_ = true;
  GODWIT_RETURN_IF_ERROR(RunHere());
  owner_ = true;
  absl::Status started;
  if (options_.vm.start_vcpus) {
    started = Annotate(options_.vm.start_vcpus(),
                       "the devices run here, but the VMM could not start the vCPUs");
  }
  done_at_ = Clock::Steady().Now();
  control::ControlMessage done;
  done.mutable_done()->set_proof(HandoverProof(HandoverWord::kDone));
  if (channel_ != nullptr && !channel_->Send(done).ok()) channel_.reset();
  Answer(done);
  return started;
}

// Until the source has committed. Contact may be lost and made again meanwhile: by a Commit, which
// is then the first message of a new connection.
absl::Status TargetSession::Impl::AwaitCommit() {
  const Clock::Duration deadline = Clock::Steady().Now() + options_.commit_timeout;
  absl::Status lost;
  while (Clock::Steady().Now() < deadline) {
    if (channel_ != nullptr) {
      const auto message = Receive();
      if (peer_gave_up_) return message.status();
      if (message.ok() && message->has_value()) {
        if ((*message)->has_commit()) return absl::OkStatus();
        // A queue pair that it offered before it knew that all has come is of no use now.
        if (!(*message)->has_remake_lane() && !TakeStopping(**message)) return OutOfTurn(**message);
        continue;
      }
      if (!message.ok()) {
        // It closed its end and Commit did not come before: so it has not committed.
        if (channel_->closed_in_order()) return message.status();
        lost = message.status();
        observer_.OnNote(absl::StrCat("waiting for the source to come back: ", lost.message()));
        channel_.reset();
      }
    }
    // Also while the old channel seems to live: the source may know better.
    if (auto caller = NextCommitter(); caller != nullptr) {
      channel_ = std::move(caller);
      return absl::OkStatus();
    }
    std::vector<pollfd> fds;
    callers_->AddPollFds(fds);
    const absl::Status waited = WaitForEvents(&fds);
    // A Commit that is here already comes before a Cancel(): the source will not run again.
    if (absl::IsCancelled(waited)) {
      if (channel_ == nullptr) return waited;
      auto last = Receive();
      while (last.ok() && last->has_value() && (*last)->has_remake_lane()) last = Receive();
      if (!last.ok() || !last->has_value() || !(*last)->has_commit()) return waited;
      return absl::OkStatus();
    }
    // Any other error is the channel's: Receive() says it again.
  }
  if (!lost.ok()) return Annotate(lost, "the source did not come back in time");
  return absl::DeadlineExceededError(
      absl::StrCat("the source has not committed in ", options_.commit_timeout.count(), " ms"));
}

// A new connection of our source's, whose first message was its Commit, if one has come.
std::unique_ptr<ControlChannel> TargetSession::Impl::NextCommitter() {
  for (size_t heard = 0; heard < TargetCallers::kArrivalsARound; ++heard) {
    auto call = callers_->Next();
    if (!call.ok()) {  // another version: not our source
      strangers_.Tell(absl::StrCat("turned away ", call.status().message()));
      continue;
    }
    if (!call->has_value()) return nullptr;
    const control::ControlMessage& first = (*call)->first;
    if (first.has_commit() && first.commit().session_id() == session_id_ &&
        IsPeersWord(HandoverWord::kCommit, first.commit().proof())) {
      return std::move((*call)->channel);
    }
    callers_->TurnAway(*(*call)->channel, "it is not the source of this session");
  }
  return nullptr;
}

absl::Status TargetSession::Impl::RunHere() {
  const absl::Status ran = RunAll(
      step_threads_, devices_, [this] { KeepAlive(); }, &steps_);
  TellSteps();
  return ran;
}

// Answers each Commit, on whichever channel, until the source has said that it knows or
// outcome_hold is over. A Cancel() ends that at once.
void TargetSession::Impl::Answer(const control::ControlMessage& outcome) {
  const Clock::Duration deadline = Clock::Steady().Now() + options_.outcome_hold;
  bool said_so = false;
  cancel_->Clear();  // a Cancel() from before was too late, or has been obeyed
  while (Clock::Steady().Now() < deadline) {
    if (channel_ != nullptr) {
      const auto message = Receive();
      if (message.ok() && message->has_value()) {
        // (Who has overheard a Commit's proof can repeat it, and must not end the answers.)
        if ((*message)->has_forget() &&
            IsPeersWord(HandoverWord::kForget, (*message)->forget().proof())) {
          return;
        }
        if ((*message)->has_commit()) {
          committed_ = true;
          (void)channel_->Send(outcome);
        }
        continue;
      }
      if (peer_gave_up_ && !committed_) return;
      // Closed in order without a Commit: it never committed.
      if (!message.ok() && !committed_ && channel_->closed_in_order()) return;
      if (!message.ok()) channel_.reset();
    }
    if (auto caller = NextCommitter(); caller != nullptr) {
      channel_ = std::move(caller);
      committed_ = true;
      (void)channel_->Send(outcome);
      continue;
    }
    if (channel_ == nullptr && !said_so) {
      observer_.OnNote(absl::StrCat(
          "the source may not know yet how it ended: staying to tell it for up to ",
          std::chrono::ceil<std::chrono::seconds>(options_.outcome_hold).count(), " s"));
      said_so = true;
    }
    std::vector<pollfd> fds;
    callers_->AddPollFds(fds);
    if (absl::IsCancelled(WaitForNews(&fds))) return;
  }
}

// The devices will not run here: puts them back and says so to whoever has to know.
absl::Status TargetSession::Impl::EndWithoutDevices(absl::Status why) {
  // Before Commit the source is told first: its VM waits.
  if (!committed_) SendAbort(why, /*last=*/!promised_);
  const absl::Status rolled_back = RollBack();
  if (committed_ && !rolled_back.ok()) {
    // What is not reset may run: nothing may be promised to the source, which stays stopped.
    in_doubt_ = true;
    channel_.reset();
    return WithRollBack(
        Annotate(why, "the source has handed over, but the devices do not run here"), rolled_back);
  }
  // An Abort of the source's or an orderly end of its channel: it never committed.
  const bool may_have_committed =
      committed_ ||
      (promised_ && !peer_gave_up_ && (channel_ == nullptr || !channel_->closed_in_order()));
  if (may_have_committed) {
    control::ControlMessage message;
    message.mutable_rolled_back()->set_reason(Printable(why.message()));
    message.mutable_rolled_back()->set_proof(HandoverProof(HandoverWord::kRolledBack));
    if (committed_ && channel_ != nullptr && !channel_->Send(message).ok()) channel_.reset();
    Answer(message);
  } else {
    why = PreferPeersReason(std::move(why));
  }
  return WithRollBack(std::move(why), rolled_back);
}

// Not bounded: a driver's call that is under way lasts as long as it lasts.
void TargetSession::Impl::StopLoaders() {
  if (loaders_.empty()) return;
  for (auto& loader : loaders_) loader->AskToStop();
  (void)step_threads_.ForEach(
      [this](size_t i) {
        if (i < loaders_.size()) loaders_[i]->Stop();
        return absl::OkStatus();
      },
      [this] {
        KeepAlive();
        for (size_t i = 0; i < loaders_.size(); ++i) TellBlocked(i, loaders_[i]->blocked_call());
      });
}

// Resets every device.
absl::Status TargetSession::Impl::RollBack() {
  StopLoaders();
  if (worker_ != nullptr) worker_->Stop();
  streams_.clear();
  if (!resuming_) return absl::OkStatus();
  return ResetAll(step_threads_, devices_, [this] { KeepAlive(); });
}

}  // namespace godwit
