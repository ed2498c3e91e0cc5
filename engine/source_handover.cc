// The source's side of the handover: docs/handover.md.

#include <absl/strings/str_cat.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/device_steps.h"
#include "engine/source_impl.h"

namespace godwit {
namespace {

// While contact is lost after Commit: how long one attempt may take, and the pause between two.
constexpr std::chrono::milliseconds kReconnectTimeout{1000};
constexpr std::chrono::milliseconds kReconnectPause{200};

}  // namespace

absl::Status SourceSession::Impl::HandOver() {
  SetPhase(SessionPhase::kHandingOver);
  GODWIT_RETURN_IF_ERROR(CheckCancelled());
  const absl::Status stopped = StopForGood(
      step_threads_, devices_, [this] { KeepAlive(); }, &steps_);
  TellSteps();
  GODWIT_RETURN_IF_ERROR(stopped);
  // Only receipts can be on the way now. Above all no Done: it would be taken for the answer.
  while (true) {
    GODWIT_ASSIGN_OR_RETURN(const auto early, Receive());
    if (!early.has_value()) break;
    if (!OfLanes(*early)) return OutOfTurn(*early);
  }
  GODWIT_RETURN_IF_ERROR(CheckCancelled());
  // From here on the target may run: the source never resumes by itself.
  committed_ = true;
  const Clock::Duration deadline = Clock::Steady().Now() + options_.resolve_timeout;
  absl::Status outcome = SendCommit();
  if (outcome.ok()) outcome = AwaitOutcome(deadline);
  // An answer is an answer; anything else is lost contact.
  if (!outcome.ok() && !target_rolled_back_) outcome = Resolve(std::move(outcome), deadline);
  GODWIT_RETURN_IF_ERROR(outcome);
  done_at_ = Clock::Steady().Now();
  SendForget();
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::SendCommit() {
  control::ControlMessage message;
  message.mutable_commit()->set_session_id(session_id_);
  message.mutable_commit()->set_proof(HandoverProof(HandoverWord::kCommit));
  return channel_->Send(message);
}

void SourceSession::Impl::SendForget() {
  control::ControlMessage message;
  message.mutable_forget()->set_proof(HandoverProof(HandoverWord::kForget));
  (void)channel_->Send(message);  // a target that doesn't hear it forgets after a while
}

// False only for an answer that somebody else gives: on a new connection any host that is believed
// could, and with RolledBack make the source run what runs at the target.
bool SourceSession::Impl::IsTargetsAnswer(const control::ControlMessage& answer) const {
  if (answer.has_done()) return IsPeersWord(HandoverWord::kDone, answer.done().proof());
  if (!answer.has_rolled_back()) return true;
  return IsPeersWord(HandoverWord::kRolledBack, answer.rolled_back().proof());
}

// What became of the devices at the target. OK: they run there. With target_rolled_back_: they
// never will. Any other error: it isn't known.
absl::Status SourceSession::Impl::AwaitOutcome(Clock::Duration deadline) {
  while (Clock::Steady().Now() < deadline) {
    // An Abort was sent before it had our Commit, and what follows one counts for nothing: as with
    // a broken channel it is asked again, on a new one.
    GODWIT_ASSIGN_OR_RETURN(const std::optional<control::ControlMessage> answer, Receive());
    if (answer.has_value()) {
      if (!IsTargetsAnswer(*answer)) {
        return absl::UnauthenticatedError(absl::StrCat(
            "peer ", channel_->peer(),
            " says how it ended, but does not prove that it is the target of this session"));
      }
      if (answer->has_done()) return absl::OkStatus();
      if (answer->has_rolled_back()) {
        target_rolled_back_ = true;
        return absl::AbortedError(absl::StrCat("peer ", channel_->peer(), " could not run them: ",
                                               Printable(answer->rolled_back().reason())));
      }
      if (!OfLanes(*answer)) return OutOfTurn(*answer);
      continue;  // sent before it had our Commit
    }
    const absl::Status waited = WaitForNews();
    if (absl::IsCancelled(waited)) {
      NoteLateCancel();  // the answer decides
    } else if (!waited.ok()) {
      return waited;
    }
  }
  return absl::DeadlineExceededError(absl::StrCat("the target answers, but did not say in ",
                                                  options_.resolve_timeout.count(),
                                                  " ms whether the devices run there"));
}

void SourceSession::Impl::NoteLateCancel() {
  cancel_was_late_ = true;
  observer_.OnNote("too late to cancel: the target has been told to run the devices");
}

// Looks for the target until it says how it ended.
absl::Status SourceSession::Impl::Resolve(absl::Status why, Clock::Duration deadline) {
  observer_.OnNote(absl::StrCat("contact was lost at the handover (", why.message(),
                                "): asking the target how it ended"));
  while (Clock::Steady().Now() < deadline) {
    ResetChannel();
    absl::Status outcome = MakeChannel(kReconnectTimeout);
    if (outcome.ok()) outcome = SendCommit();
    if (outcome.ok()) outcome = AwaitOutcome(deadline);
    if (outcome.ok() || target_rolled_back_) return outcome;
    if (!absl::IsCancelled(outcome)) why = std::move(outcome);
    if (Pause(kReconnectPause).ok()) continue;
    // A second wish to end is obeyed: whoever has it looks after both hosts.
    if (cancel_was_late_) break;
    NoteLateCancel();
  }
  return why;
}

// With a reset, so that the target does not take an orderly end for "never committed".
void SourceSession::Impl::ResetChannel() {
  if (channel_ == nullptr) return;
  const linger at_once = {1, 0};
  (void)::setsockopt(channel_->fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  channel_.reset();
}

// Not bounded: a driver's read that can't be cancelled lasts as long as it lasts.
void SourceSession::Impl::StopWorkerAndTell() {
  lane_maker_.reset();
  (void)step_threads_.ForEach(
      [this](size_t i) {
        if (i == 0) worker_->Stop();
        return absl::OkStatus();
      },
      [this] {
        KeepAlive();
        for (size_t i = 0; i < devices_.size(); ++i) TellBlocked(i, worker_->blocked_call(i));
      });
}

// Puts every device back to RUNNING, and then the vCPUs.
absl::Status SourceSession::Impl::RollBack() {
  // What they have to say is known or no longer matters; so are lanes that the target, told of the
  // end, lets go.
  (void)StopWatches([this] { KeepAlive(); });
  if (worker_ != nullptr) StopWorkerAndTell();
  if (!left_running_ && !vcpus_stopped_) return absl::OkStatus();
  absl::Status back;
  if (left_running_) {
    back = PutBackToRunning(step_threads_, devices_, observer_, device_reports_,
                            [this] { KeepAlive(); });
  }
  if (back.ok() && vcpus_stopped_ && options_.vm.start_vcpus) {
    back = Annotate(options_.vm.start_vcpus(), "starting the vCPUs again");
  }
  return back;
}

}  // namespace godwit
