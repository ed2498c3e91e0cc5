// What both sides of a session share: the control channel, waiting, cancelling, progress.
#ifndef GODWIT_ENGINE_SESSION_BASE_H_
#define GODWIT_ENGINE_SESSION_BASE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/clock.h"
#include "base/notifier.h"
#include "engine/blocked_call.h"
#include "engine/device_steps.h"
#include "engine/handover_proof.h"
#include "godwit/session.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"
#include "transport/lane.h"
#include "transport/lane_proof.h"
#include "transport/verbs/verbs_lane.h"

namespace godwit {

// Ownership: owns the channel, the arena and the notifiers.
// Threads:   the control thread, but for Cancel() (also from a signal handler) and progress().
// Blocking:  Await() and WaitForEvents() sleep in poll(2), 100 ms at most at a time.
// Errors:    Aborted: the peer gave up, with its reason. Cancelled: Cancel() was called.
class SessionBase {
 public:
  void Cancel();
  SessionProgress progress() const;

 protected:
  SessionBase(std::vector<Device*> devices, SessionObserver& observer)
      : devices_(std::move(devices)), observer_(observer), step_threads_(devices_.size()) {}
  ~SessionBase() = default;

  absl::Status MakeNotifiers();
  void SetPhase(SessionPhase phase);
  bool cancelled() const { return cancelled_.load(); }
  // Before a step that a session which is cancelled need not begin.
  absl::Status CheckCancelled() const {
    return cancelled() ? absl::CancelledError("cancelled") : absl::OkStatus();
  }
  Notifier& events() { return *events_; }

  // Sleeps until the channel, events(), Cancel() or one of `more` has something, or the next tick
  // is due; then does the tick. `more` has its revents then. An error is the channel's or
  // Cancelled.
  absl::Status WaitForEvents(std::vector<pollfd>* more = nullptr);
  // The same for when it is too late to cancel: Cancelled only if Cancel() was called since the
  // last wait.
  absl::Status WaitForNews(std::vector<pollfd>* more = nullptr);
  // Sleeps for `time`, or until Cancel() is called, which is then an error.
  absl::Status Pause(std::chrono::milliseconds time);
  // Tells the observer and the trace what steps_ has; returns what the slowest took.
  Clock::Duration TellSteps();
  void SetAnswerTimeout(std::chrono::milliseconds timeout) { answer_timeout_ = timeout; }
  // Of a session whose options have a sink.
  void SetTrace(TraceSink* trace) { trace_ = trace; }

  // What keeps the channel alive while devices are busy. Its errors show at the next call.
  void KeepAlive();
  // The next message, or null: nothing now. It stays until the next one is asked for, here or by
  // Receive(), Await() or PreferPeersReason(). Abort comes back as an error.
  absl::StatusOr<const control::ControlMessage*> Next();
  // The same to keep.
  absl::StatusOr<std::optional<control::ControlMessage>> Receive();
  // Waits for the next message, which must be of the kind that `wanted` says (a field number of
  // ControlMessage); `name` is for messages. DeadlineExceeded: the peer lives and does not answer.
  absl::StatusOr<control::ControlMessage> Await(control::ControlMessage::MessageCase wanted,
                                                const char* name);
  static absl::Status OutOfTurn(const control::ControlMessage& message);

  // The peer's reason if it aborts within a moment, else `status`: when a lane breaks, the reason
  // is often on its way on the control channel.
  absl::Status PreferPeersReason(absl::Status status);
  // Tells people, once a device, that the session waits for a call of its driver's.
  void TellBlocked(size_t device, const BlockedCall& call);
  // Tells the peer why, without waiting for it. `last`: nothing will follow, so that the peer need
  // not wait for us either, whatever we still have to do.
  void SendAbort(const absl::Status& why, bool last);
  // Waits a moment for the peer to read what was sent last and to close its end.
  void Linger();

  // Of the channel that the session began on, and for as long as it lasts; nothing where it is
  // plain. REQUIRES: session_id_, and a message has come from the peer
  absl::Status ExportKeys();
  // To go with a message that decides who runs the devices; "" in a plain session.
  std::string HandoverProof(HandoverWord word) const;
  // Whether it comes from the session's own peer; in a plain session whoever sends it is believed.
  bool IsPeersWord(HandoverWord word, absl::string_view proof) const;

  control::DeviceTable OurDeviceTable();
  // InvalidArgument unless the peer's table pairs with our devices by position.
  absl::Status CheckDeviceTable(const control::DeviceTable& theirs) const;

  std::vector<Device*> devices_;
  SessionObserver& observer_;
  std::optional<Notifier> events_;
  std::optional<Notifier> cancel_;
  std::unique_ptr<ControlChannel> channel_;
  std::string session_id_;
  std::optional<TrafficKey> lane_key_;
  std::optional<TrafficKey> packet_key_;
  std::optional<TrafficKey> handover_key_;
  Sealing sealing_ = Sealing::kOff;  // as agreed; not kOff only with a packet_key_
  bool crc_ = true;                  // as agreed
  StepLog steps_;
  StepThreads step_threads_;
  TraceSink* trace_ = nullptr;
  std::chrono::milliseconds answer_timeout_{60'000};
  std::unique_ptr<Arena> arena_;
  bool peer_gave_up_ = false;  // its Abort has come

  std::atomic<SessionPhase> phase_{SessionPhase::kConnecting};
  std::atomic<uint64_t> progress_bytes_{0};
  std::atomic<uint64_t> progress_bytes_total_{0};
  std::atomic<int64_t> progress_downtime_{0};  // an estimate, in ns

 private:
  void TracePhase(SessionPhase next);

  Clock::Duration phase_began_{0};
  std::vector<bool> told_blocked_;  // by device
  std::vector<pollfd> poll_fds_;    // WaitForNews()'s
  std::atomic<bool> cancelled_{false};
  std::atomic<int> cancel_fd_{-1};  // for Cancel(), which may come before MakeNotifiers()
};

control::SealMode ToProto(SealMode mode);
// What two sides agree on that want that; `off_loopback`: an address of either is not a loopback
// address. InvalidArgument: one wants it and the other does not, or can't.
absl::StatusOr<Sealing> AgreeOnSealing(control::SealMode source, SealMode target, bool plain,
                                       TransportKind transport, bool off_loopback);
control::Sealing ToProto(Sealing sealing);
absl::StatusOr<Sealing> FromProto(control::Sealing sealing);

control::LaneSetup::Verbs ToProto(const VerbsEndpoint& endpoint);
// InvalidArgument where a field can't be what it says.
absl::StatusOr<VerbsEndpoint> FromProto(const control::LaneSetup::Verbs& proto);

// What went wrong, and then what went wrong with putting the devices back, if that did.
absl::Status WithRollBack(absl::Status why, const absl::Status& rolled_back);

// InvalidArgument, NotFound or FailedPrecondition, saying what to do, if `transport` or `devices`
// asks for RDMA and this host has none that would do.
absl::Status CheckRdma(TransportKind transport, const std::string& devices);
// Whether this host has an RDMA port that is up and has an address; each that is named, if any are.
bool HasUsableRdmaPort(const std::string& devices);
// Shuts a lane down that no worker has, waits until the NIC has let go of its buffers, and frees
// it.
void CloseLane(std::unique_ptr<VerbsLane> lane);

// "godwit 0.1.0"
std::string SoftwareName();

// Text from a peer, made fit for a terminal: one line of printable characters, 512 at most.
std::string Printable(absl::string_view text);

}  // namespace godwit

#endif  // GODWIT_ENGINE_SESSION_BASE_H_
