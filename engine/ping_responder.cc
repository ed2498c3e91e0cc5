#include "engine/ping_responder.h"

#include <absl/strings/str_cat.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "base/thread_name.h"
#include "engine/packet.h"
#include "engine/ping_control.h"
#include "engine/session_base.h"
#include "engine/session_offer.h"
#include "engine/target_limits.h"
#include "transport/tcp/tcp_lane.h"
#include "transport/tls/tls_context.h"

namespace godwit {

absl::StatusOr<std::unique_ptr<PingResponder>> PingResponder::Start(
    std::unique_ptr<ControlChannel> channel, const control::Hello& hello,
    const TargetOptions& options, control::DeviceTable devices) {
  GODWIT_ASSIGN_OR_RETURN(Notifier stop, Notifier::Create());
  GODWIT_ASSIGN_OR_RETURN(Notifier events, Notifier::Create());
  auto responder = std::unique_ptr<PingResponder>(new PingResponder(
      std::move(channel), hello, options, std::move(devices), std::move(stop), std::move(events)));
  responder->thread_ = std::thread([at = responder.get()] {
    NameThisThread("godwit-ping");
    at->Run();
  });
  return responder;
}

PingResponder::PingResponder(std::unique_ptr<ControlChannel> channel, control::Hello hello,
                             TargetOptions options, control::DeviceTable devices, Notifier stop,
                             Notifier events)
    : channel_(std::move(channel)),
      hello_(std::move(hello)),
      options_(std::move(options)),
      devices_(std::move(devices)),
      deadline_(Clock::Steady().Now() + kTimeMax),
      stop_(std::move(stop)),
      events_(std::move(events)) {}

PingResponder::~PingResponder() {
  stop_.Notify();
  thread_.join();
}

bool PingResponder::TakeLane(Rendezvous::Arrival& lane) {
  if (finished() || lane.lane.session_id != hello_.session_id()) return false;
  MutexLock lock(mutex_);
  if (arrived_.size() >= hello_.lanes()) return false;
  arrived_.push_back(std::move(lane));
  events_.Notify();
  return true;
}

void PingResponder::Run() {
  const absl::Status answered = Answer();
  if (!answered.ok()) {
    control::ControlMessage message;
    message.mutable_abort()->set_reason(Printable(answered.message()));
    (void)channel_->Send(message);
  }
  worker_.reset();
  for (auto& lane : verbs_lanes_) CloseLane(std::move(lane));
  verbs_lanes_.clear();
  rdma_ports_.reset();
  finished_.store(true);
  channel_->EndSending();  // who pings again at once finds us done
}

absl::Status PingResponder::Answer() {
  GODWIT_RETURN_IF_ERROR(Welcome());
  GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage setup,
                          AwaitMessage(*channel_, control::ControlMessage::kLaneSetup,
                                       "the lanes of its ping", deadline_, stop_.fd()));
  GODWIT_RETURN_IF_ERROR(MakeLanes(setup.lane_setup()));
  return CountPackets();
}

// Everything that a session would be refused for, too, and what takes too much memory.
absl::Status PingResponder::Welcome() {
  GODWIT_RETURN_IF_ERROR(CheckAskedFor(hello_, options_));
  GODWIT_ASSIGN_OR_RETURN(transport_, ChooseTransport(hello_, options_));
  GODWIT_ASSIGN_OR_RETURN(
      const Sealing sealing,
      AgreeOnSealing(hello_.seal(), options_.trust.seal, !channel_->authenticated(), transport_,
                     hello_.off_loopback() || !IsOnLoopback(channel_->fd())));
  const bool verbs = transport_ == TransportKind::kVerbs;
  budget_ = PlanTarget(/*arena_bytes=*/0, /*devices=*/1, hello_.lanes(), hello_.packet_bytes(),
                       /*receives_are_posted_ahead=*/verbs);
  limits_ = {kFrameHeaderBytes, PayloadBytesMax(hello_.packet_bytes()), budget_.receive_packets};
  // For this a session would not be refused: it has its arena, but not everybody who pings may
  // take as much memory as he likes.
  const size_t bytes = budget_.buffers * Arena::StrideBytes(limits_.payload_bytes_max);
  if (bytes > std::max(options_.arena_bytes, kArenaBytes)) {
    return absl::FailedPreconditionError(
        absl::StrCat("a ping of ", hello_.lanes(), " lanes with packets of ", hello_.packet_bytes(),
                     " bytes takes ", bytes >> 20,
                     " MiB at the target: ask with fewer lanes, or smaller packets"));
  }
  GODWIT_ASSIGN_OR_RETURN(arena_, Arena::Create(budget_.buffers, limits_.payload_bytes_max,
                                                [this] { return Stopped(); }));

  control::ControlMessage message;
  *message.mutable_welcome() = WelcomeOf(budget_, sealing, transport_);
  GODWIT_RETURN_IF_ERROR(channel_->Send(message));
  *message.mutable_device_table() = devices_;
  return channel_->Send(message);
}

absl::Status PingResponder::MakeLanes(const control::LaneSetup& theirs) {
  control::ControlMessage answer;
  const bool verbs = transport_ == TransportKind::kVerbs;
  GODWIT_RETURN_IF_ERROR(verbs ? MakeVerbsLanes(theirs, *answer.mutable_lane_setup())
                               : AwaitTcpLanes());
  answer.mutable_lane_setup();
  receipted_.resize(hello_.lanes());
  GODWIT_ASSIGN_OR_RETURN(
      worker_, PingWorker::Make(LaneRole::kReceiver, limits_, hello_.packet_bytes(), hello_.lanes(),
                                *arena_, events_));
  GODWIT_RETURN_IF_ERROR(worker_->Start([this, verbs](IoRing& ring) {
    std::vector<std::unique_ptr<Lane>> lanes;
    if (verbs) {
      for (auto& lane : verbs_lanes_) lanes.push_back(std::move(lane));
      verbs_lanes_.clear();
    } else {
      MutexLock lock(mutex_);
      for (Rendezvous::Arrival& lane : arrived_) {
        lanes.push_back(TcpLane::Make(std::move(lane.socket), ring, limits_, LaneRole::kReceiver,
                                      absl::StrCat("tcp ", lane.peer)));
      }
    }
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  }));
  return channel_->Send(answer);
}

absl::Status PingResponder::AwaitTcpLanes() {
  while (true) {
    {
      MutexLock lock(mutex_);
      if (arrived_.size() == hello_.lanes()) {
        for (const Rendezvous::Arrival& lane : arrived_) TuneLaneSocket(lane.socket.get());
        return absl::OkStatus();
      }
    }
    GODWIT_ASSIGN_OR_RETURN(const auto message, NextMessage(*channel_));
    if (message.has_value()) return absl::InvalidArgumentError("it sent a message out of turn");
    GODWIT_RETURN_IF_ERROR(CheckTime());
    SleepOn(*channel_, {stop_.fd(), events_.fd()});
    events_.Clear();
  }
}

absl::Status PingResponder::MakeVerbsLanes(const control::LaneSetup& theirs,
                                           control::LaneSetup& ours) {
  if (static_cast<uint32_t>(theirs.verbs_size()) != hello_.lanes()) {
    return absl::InvalidArgumentError(absl::StrCat("it names ", theirs.verbs_size(),
                                                   " queue pairs for ", hello_.lanes(), " lanes"));
  }
  GODWIT_ASSIGN_OR_RETURN(rdma_ports_, RdmaPorts::Open(options_.rdma_device, *arena_));
  for (const auto& row : theirs.verbs()) {
    GODWIT_ASSIGN_OR_RETURN(const VerbsEndpoint endpoint, FromProto(row));
    GODWIT_ASSIGN_OR_RETURN(
        auto lane, rdma_ports_->MakeLane(verbs_lanes_.size(), 0, LaneRole::kReceiver, limits_));
    verbs_lanes_.push_back(std::move(lane));
    GODWIT_RETURN_IF_ERROR(verbs_lanes_.back()->Connect(endpoint));
    *ours.add_verbs() = ToProto(verbs_lanes_.back()->local());
  }
  return absl::OkStatus();
}

// Until it closes its end, which it does when it has all receipts.
absl::Status PingResponder::CountPackets() {
  while (true) {
    const auto message = NextMessage(*channel_);
    if (!message.ok()) return channel_->closed_in_order() ? absl::OkStatus() : message.status();
    if (message->has_value()) return absl::InvalidArgumentError("it sent a message out of turn");
    if (worker_->failed()) return worker_->status();
    GODWIT_RETURN_IF_ERROR(SendReceipts());
    GODWIT_RETURN_IF_ERROR(CheckTime());
    SleepOn(*channel_, {stop_.fd(), events_.fd()});
    events_.Clear();
  }
}

absl::Status PingResponder::SendReceipts() {
  bool news = false;
  control::ControlMessage message;
  for (size_t i = 0; i < receipted_.size(); ++i) {
    const uint64_t packets = worker_->packets(i);
    news |= packets != receipted_[i];
    receipted_[i] = packets;
    message.mutable_receipts()->add_lane_packets(packets);
  }
  return news ? channel_->Send(message) : absl::OkStatus();
}

bool PingResponder::Stopped() const {
  pollfd stop = {stop_.fd(), POLLIN, 0};
  return ::poll(&stop, 1, 0) > 0;
}

absl::Status PingResponder::CheckTime() const {
  if (Stopped()) {
    return absl::CancelledError("the source that it waits for has come, or its wait is over");
  }
  if (Clock::Steady().Now() < deadline_) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("a ping may take ", kTimeMax.count(), " s at most"));
}

}  // namespace godwit
