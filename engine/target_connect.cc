// The target's side of a session until frames can flow: docs/wire-format.md, section 4, steps 1
// to 6.

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/processors.h"
#include "base/status_macros.h"
#include "engine/device_steps.h"
#include "engine/session_offer.h"
#include "engine/target_impl.h"
#include "engine/target_limits.h"
#include "transport/tcp/tcp_lane.h"

namespace godwit {
namespace {

// How long a source's lanes may take to come.
constexpr std::chrono::seconds kLanesTimeout{8};

}  // namespace

absl::Status TargetSession::Impl::Listen() {
  GODWIT_ASSIGN_OR_RETURN(const TcpAddress address, ParseTcpAddress(options_.listen));
  GODWIT_ASSIGN_OR_RETURN(tls_, TlsContext::Make(options_.trust, TlsRole::kServer));
  GODWIT_ASSIGN_OR_RETURN(rendezvous_,
                          Rendezvous::Listen(
                              address, [this](const std::string& line) { strangers_.Tell(line); },
                              options_.trust.kind()));
  GODWIT_RETURN_IF_ERROR(
      Annotate(CheckPlainAllowed(options_.trust, rendezvous_->listener(), /*peer=*/false),
               absl::StrCat("listening on ", options_.listen)));
  callers_.emplace(
      *rendezvous_, [this](absl::string_view line) { strangers_.Tell(line); }, tls_.get(),
      options_.trust.peer_name,
      [this](Rendezvous::Arrival& lane) { return ping_ != nullptr && ping_->TakeLane(lane); });
  observer_.OnListening(address.host, rendezvous_->port());
  return absl::OkStatus();
}

// Until a peer has said a Hello that we can make sense of, nothing that comes to the port ends the
// session: but on a plain one a Godwit of another version does, since that is the real peer,
// wrongly installed. Where a peer has to prove who it is, nothing that it says before is believed.
absl::Status TargetSession::Impl::WaitForPeer() {
  SetPhase(SessionPhase::kWaiting);
  while (true) {
    GODWIT_RETURN_IF_ERROR(CheckCancelled());
    absl::StatusOr<std::optional<TargetCallers::Call>> next = callers_->Next();
    if (!next.ok() && tls_ != nullptr) {
      strangers_.Tell(absl::StrCat("turned away ", next.status().message()));
      continue;
    }
    GODWIT_ASSIGN_OR_RETURN(std::optional<TargetCallers::Call> call, std::move(next));
    if (!call.has_value()) {
      std::vector<pollfd> fds;
      callers_->AddPollFds(fds);
      GODWIT_RETURN_IF_ERROR(WaitForEvents(&fds));
      continue;
    }
    if (const absl::Status hello = CheckHello(call->first); !hello.ok()) {
      callers_->TurnAway(*call->channel, hello.message());
      continue;
    }
    if (call->first.hello().ping()) {
      AnswerPing(*std::move(call));
      continue;
    }
    ping_.reset();  // the real one goes first
    channel_ = std::move(call->channel);
    connected_at_ = call->came_at;
    SetPhase(SessionPhase::kConnecting);
    session_id_ = call->first.hello().session_id();
    GODWIT_RETURN_IF_ERROR(ExportKeys());
    rendezvous_->PreferSession(session_id_);
    if (lane_key_.has_value()) rendezvous_->RequireLaneProof(*lane_key_);
    callers_->TurnAllAway("a source has come before it");
    return Welcome(call->first.hello());
  }
}

// On a thread of its own, one at a time.
void TargetSession::Impl::AnswerPing(TargetCallers::Call call) {
  if (ping_ != nullptr && !ping_->finished()) {
    callers_->TurnAway(*call.channel, "another ping is being answered");
    control::ControlMessage message;
    message.mutable_abort()->set_reason("another ping is being answered");
    (void)call.channel->Send(message);
    call.channel->EndSending();
    return;
  }
  auto started =
      PingResponder::Start(std::move(call.channel), call.first.hello(), options_, OurDeviceTable());
  if (started.ok()) {
    ping_ = *std::move(started);
  } else {
    observer_.OnNote(absl::StrCat("a ping is not answered: ", started.status().message()));
  }
}

absl::Status TargetSession::Impl::CheckHello(const control::ControlMessage& first) {
  if (!first.has_hello()) return OutOfTurn(first);
  if (first.hello().session_id().size() == kSessionIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError("its session id is not 16 bytes long");
}

absl::Status TargetSession::Impl::Welcome(const control::Hello& hello) {
  GODWIT_RETURN_IF_ERROR(CheckAskedFor(hello, options_));
  GODWIT_ASSIGN_OR_RETURN(transport_, ChooseTransport(hello, options_));
  GODWIT_ASSIGN_OR_RETURN(
      sealing_, AgreeOnSealing(hello.seal(), options_.trust.seal, !packet_key_.has_value(),
                               transport_, hello.off_loopback() || !IsOnLoopback(channel_->fd())));
  crc_ = options_.crc || !hello.crc_off();
  lane_count_ = hello.lanes();
  packet_bytes_ = hello.packet_bytes();
  const bool verbs = transport_ == TransportKind::kVerbs;
  budget_ = PlanTarget(options_.arena_bytes, static_cast<uint32_t>(devices_.size()), lane_count_,
                       packet_bytes_, /*receives_are_posted_ahead=*/verbs);
  lane_limits_ = {kFrameHeaderBytes, PayloadBytesMax(packet_bytes_), budget_.receive_packets};
  GODWIT_ASSIGN_OR_RETURN(arena_, Arena::Create(budget_.buffers, lane_limits_.payload_bytes_max,
                                                [this] { return cancelled(); }));

  control::ControlMessage message;
  *message.mutable_welcome() = WelcomeOf(budget_, sealing_, transport_);
  message.mutable_welcome()->set_crc_off(!crc_);
  return channel_->Send(message);
}

absl::Status TargetSession::Impl::ExchangeDeviceTables() {
  GODWIT_ASSIGN_OR_RETURN(
      const control::ControlMessage theirs,
      Await(control::ControlMessage::kDeviceTable, "the source's device table"));
  GODWIT_RETURN_IF_ERROR(CheckDeviceTable(theirs.device_table()));
  uint64_t bytes_total = 0;
  for (const auto& row : theirs.device_table().devices()) {
    bytes_total += row.stop_copy_bytes();
    expected_bytes_.push_back(row.stop_copy_bytes());
  }
  progress_bytes_total_.store(bytes_total, std::memory_order_relaxed);
  control::ControlMessage message;
  *message.mutable_device_table() = OurDeviceTable();
  return channel_->Send(message);
}

absl::Status TargetSession::Impl::Resume() {
  resuming_ = true;
  const absl::Status resumed = SetStates(
      step_threads_, devices_, DeviceState::kResuming, &streams_, [this] { KeepAlive(); }, &steps_);
  target_step_ = TellSteps() + step_threads_.Overhead();
  return resumed;
}

absl::Status TargetSession::Impl::MakeLanes() {
  GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage message,
                          Await(control::ControlMessage::kLaneSetup, "the source's lanes"));
  control::ControlMessage answer;
  control::LaneSetup& ours = *answer.mutable_lane_setup();
  ours.set_step_ns(static_cast<uint64_t>(target_step_.count()));
  GODWIT_RETURN_IF_ERROR(transport_ == TransportKind::kVerbs
                             ? MakeVerbsLanes(message.lane_setup(), ours)
                             : AcceptTcpLanes());

  std::vector<Loader*> loaders;
  for (size_t i = 0; i < devices_.size(); ++i) {
    windows_.push_back(std::make_unique<ReorderWindow>(budget_.window_packets));
    MakeLoader(i);
    loaders.push_back(loaders_.back().get());
  }
  // A lane that is made again has the receives that the one before had.
  const TargetWorker::Limits limits = {
      packet_bytes_, budget_.queue_packets, lane_count_, lane_limits_, transport_, crc_};
  lane_generations_.resize(lane_count_);
  remade_.resize(lane_count_);
  lanes_up_ = static_cast<int>(lane_count_);
  GODWIT_ASSIGN_OR_RETURN(worker_,
                          TargetWorker::Make(std::move(loaders), limits, *arena_, events()));
  worker_->SetTrace(trace_);
  GODWIT_RETURN_IF_ERROR(worker_->SetSealing(sealing_, packet_key_));
  GODWIT_RETURN_IF_ERROR(worker_->Start(std::move(lane_factory_)));
  for (const auto& loader : loaders_) loader->Start();
  for (uint32_t i = 0; i < lane_count_; ++i) observer_.OnLane({i, /*up=*/true, {}});
  {
    MutexLock lock(statistics_mutex_);
    statistics_ready_ = true;
  }
  ready_at_ = Clock::Steady().Now();
  return channel_->Send(answer);
}

void TargetSession::Impl::MakeLoader(size_t device) {
  auto loader = std::make_unique<Loader>(
      *devices_[device], std::move(streams_[device]), *windows_[device], budget_.window_packets,
      events(), options_.stream_check ? options_.stream_check(device) : nullptr);
  if (options_.vm.load_config) {
    loader->LoadConfigBy([this, device](absl::string_view config) {
      return options_.vm.load_config(device, config);
    });
  }
  loader->SetTrace(trace_, static_cast<uint32_t>(device));
  // Opening seals is work enough for the worker. Drivers may wait for their devices: several are to
  // do so side by side, and a queue pair that is not looked after may be taken for dead, for good.
  if (sealing_ == Sealing::kOff && ProcessorsToRunOn() < kProcessorsToOverlap) {
    loader->LetWorkerHelp(/*driver=*/devices_.size() == 1 && transport_ == TransportKind::kTcp);
  }
  loaders_.push_back(std::move(loader));
}

absl::Status TargetSession::Impl::AcceptTcpLanes() {
  auto sockets = std::make_shared<std::vector<UniqueFd>>(lane_count_);
  auto names = std::make_shared<std::vector<std::string>>(lane_count_);
  const Clock::Duration deadline = Clock::Steady().Now() + kLanesTimeout;
  for (uint32_t accepted = 0; accepted < lane_count_;) {
    // In each round: strangers may come faster than they are turned away.
    KeepAlive();
    GODWIT_RETURN_IF_ERROR(CheckCancelled());
    if (Clock::Steady().Now() > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("only ", accepted, " of ", lane_count_,
                       " lanes have come from the source in 8 s: is a firewall between?"));
    }
    // Here another version's preface comes from a stranger: the real peer is in the session.
    auto arrival = rendezvous_->Next();
    if (!arrival.ok()) {
      strangers_.Tell(absl::StrCat("turned away ", arrival.status().message()));
      continue;
    }
    if (!arrival->has_value()) {
      // A source that gives up meanwhile says so on the control channel.
      GODWIT_ASSIGN_OR_RETURN(const auto message, Receive());
      if (message.has_value()) return OutOfTurn(*message);
      std::vector<pollfd> fds;
      rendezvous_->AddPollFds(fds);
      GODWIT_RETURN_IF_ERROR(WaitForEvents(&fds));
      continue;
    }
    Rendezvous::Arrival taken = *std::move(*arrival);
    if (taken.kind != PrefaceKind::kLane || taken.lane.session_id != session_id_ ||
        taken.lane.lane >= lane_count_ || taken.lane.generation != 0) {
      strangers_.Tell(absl::StrCat("turned away ", taken.peer, ": no lane of this session"));
      continue;
    }
    TuneLaneSocket(taken.socket.get());
    // A source that has lost one makes it anew, whether that loss is known here or not.
    if ((*sockets)[taken.lane.lane].valid()) --accepted;
    (*names)[taken.lane.lane] = absl::StrCat("tcp ", taken.peer);
    (*sockets)[taken.lane.lane] = std::move(taken.socket);
    ++accepted;
  }
  lane_factory_ = [this, sockets, names](IoRing& ring) {
    std::vector<std::unique_ptr<Lane>> lanes;
    for (size_t i = 0; i < sockets->size(); ++i) {
      lanes.push_back(TcpLane::Make(std::move((*sockets)[i]), ring, lane_limits_,
                                    LaneRole::kReceiver, (*names)[i]));
    }
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  };
  return absl::OkStatus();
}

absl::Status TargetSession::Impl::MakeVerbsLanes(const control::LaneSetup& theirs,
                                                 control::LaneSetup& ours) {
  if (static_cast<uint32_t>(theirs.verbs_size()) != lane_count_) {
    return absl::InvalidArgumentError(absl::StrCat("the source names ", theirs.verbs_size(),
                                                   " queue pairs for ", lane_count_, " lanes"));
  }
  GODWIT_ASSIGN_OR_RETURN(rdma_ports_, RdmaPorts::Open(options_.rdma_device, *arena_));
  for (const auto& row : theirs.verbs()) {
    GODWIT_ASSIGN_OR_RETURN(const VerbsEndpoint endpoint, FromProto(row));
    GODWIT_ASSIGN_OR_RETURN(auto lane, rdma_ports_->MakeLane(verbs_lanes_.size(), 0,
                                                             LaneRole::kReceiver, lane_limits_));
    VerbsLane& made = *lane;
    verbs_lanes_.push_back(std::move(lane));
    GODWIT_RETURN_IF_ERROR(made.Connect(endpoint));
    *ours.add_verbs() = ToProto(made.local());
  }
  lane_factory_ = [this](IoRing& /*ring*/) {
    std::vector<std::unique_ptr<Lane>> lanes;
    for (auto& lane : verbs_lanes_) lanes.push_back(std::move(lane));
    verbs_lanes_.clear();
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  };
  return absl::OkStatus();
}

}  // namespace godwit
