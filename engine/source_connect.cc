// The source's side of a session until frames can flow: docs/wire-format.md, section 4, steps 1
// to 6.

#include <absl/strings/str_cat.h>
#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/processors.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "engine/contact.h"
#include "engine/device_steps.h"
#include "engine/source_impl.h"
#include "transport/tcp/tcp_lane.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {
namespace {

// Below, what each packet costs by itself begins to tell.
constexpr size_t kAtOnceBytesMin = 512 * kKiB;

}  // namespace

SessionOffer SourceSession::Impl::Offer() const {
  return {options_.transport, options_.rdma_device, options_.lanes, options_.packet_bytes,
          options_.trust.seal};
}

absl::Status SourceSession::Impl::Check() const {
  GODWIT_RETURN_IF_ERROR(CheckMoveTogether(devices_));
  return CheckOffer(Offer());
}

absl::Status SourceSession::Impl::Connect() {
  GODWIT_ASSIGN_OR_RETURN(tls_, TlsContext::Make(options_.trust, TlsRole::kClient));
  session_id_.resize(kSessionIdBytes);
  if (::getrandom(session_id_.data(), session_id_.size(), 0) !=
      static_cast<ssize_t>(session_id_.size())) {
    return ErrnoStatus(errno, "getrandom");
  }
  return MakeChannel(options_.connect_timeout);
}

absl::Status SourceSession::Impl::MakeChannel(std::chrono::milliseconds timeout) {
  GODWIT_ASSIGN_OR_RETURN(Contact contact, ContactTarget(options_.to, options_.trust, tls_.get(),
                                                         timeout, cancel_->fd()));
  channel_ = std::move(contact.channel);
  lane_address_ = std::move(contact.lane_address);
  return absl::OkStatus();
}

absl::StatusOr<control::Welcome> SourceSession::Impl::AskForWelcome(control::Hello& hello) {
  hello = HelloOf(Offer(), OffersVerbs(Offer()), session_id_, channel_->fd());
  hello.set_crc_off(!options_.crc);
  control::ControlMessage message;
  *message.mutable_hello() = hello;
  GODWIT_RETURN_IF_ERROR(channel_->Send(message));
  GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage answer,
                          Await(control::ControlMessage::kWelcome, "the target's welcome"));
  return answer.welcome();
}

absl::Status SourceSession::Impl::Greet() {
  control::Hello hello;
  absl::StatusOr<control::Welcome> answer = AskForWelcome(hello);
  for (const std::chrono::milliseconds wait : kNoRoomWaits) {
    if (answer.ok() || !MayHaveHadNoRoom(answer.status(), *channel_)) break;
    GODWIT_RETURN_IF_ERROR(Pause(wait));
    const absl::Status made = MakeChannel(kNoRoomConnectTimeout);
    if (absl::IsCancelled(made)) return made;
    if (!made.ok()) break;  // gone: the hang-up says more
    answer = AskForWelcome(hello);
  }
  if (!answer.ok()) return ExplainHangUp(answer.status());
  const control::Welcome& welcome = *answer;
  GODWIT_RETURN_IF_ERROR(CheckWelcome(hello, welcome));
  GODWIT_RETURN_IF_ERROR(ExportKeys());
  GODWIT_RETURN_IF_ERROR(TakeSealing(welcome.sealing()));
  if (welcome.crc_off() && options_.crc) {
    return absl::InvalidArgumentError(
        "the target would leave out CRCs, which is not what was asked for");
  }
  crc_ = !welcome.crc_off();
  transport_ =
      welcome.transport() == control::TRANSPORT_VERBS ? TransportKind::kVerbs : TransportKind::kTcp;
  window_packets_ = welcome.window_packets();
  lane_limits_ = {kFrameHeaderBytes, PayloadBytesMax(options_.packet_bytes),
                  welcome.queue_packets()};
  return absl::OkStatus();
}

// The target says what it comes to; but no target talks a source out of what that has asked for.
absl::Status SourceSession::Impl::TakeSealing(control::Sealing sealing) {
  GODWIT_ASSIGN_OR_RETURN(sealing_, FromProto(sealing));
  const SealMode ours = options_.trust.seal;
  const bool as_asked = (ours != SealMode::kOn || sealing_ == Sealing::kAllLanes) &&
                        (ours != SealMode::kOff || sealing_ == Sealing::kOff) &&
                        (packet_key_.has_value() || sealing_ == Sealing::kOff);
  if (as_asked) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the target would have packets sealed \"",
                                                 SealingName(sealing_),
                                                 "\", which is not what was asked for"));
}

absl::Status SourceSession::Impl::ExchangeDeviceTables() {
  control::ControlMessage message;
  *message.mutable_device_table() = OurDeviceTable();
  uint64_t bytes_total = 0;
  for (const auto& row : message.device_table().devices()) {
    bytes_total += row.stop_copy_bytes();
    stop_copy_bytes_.push_back(row.stop_copy_bytes());
  }
  progress_bytes_total_.store(bytes_total, std::memory_order_relaxed);
  GODWIT_RETURN_IF_ERROR(channel_->Send(message));
  GODWIT_ASSIGN_OR_RETURN(
      const control::ControlMessage answer,
      Await(control::ControlMessage::kDeviceTable, "the target's device table"));
  return CheckDeviceTable(answer.device_table());
}

absl::Status SourceSession::Impl::MakeArenaAndLanes() {
  budget_ = PlanSource(options_.arena_bytes, static_cast<uint32_t>(devices_.size()), options_.lanes,
                       options_.packet_bytes, lane_limits_.queue_packets);
  GODWIT_ASSIGN_OR_RETURN(arena_, Arena::Create(budget_.buffers, lane_limits_.payload_bytes_max,
                                                [this] { return cancelled(); }));
  GODWIT_RETURN_IF_ERROR(transport_ == TransportKind::kVerbs ? MakeVerbsLanes() : MakeTcpLanes());
  absl::StatusOr<control::ControlMessage> answer = AwaitLanes();
  if (!answer.ok()) return Annotate(answer.status(), "waiting for the target's lanes to be ready");
  const control::LaneSetup& theirs = answer->lane_setup();
  // No time of a peer's is believed further than that.
  constexpr uint64_t kStepNsMax = 3'600'000'000'000;
  target_step_ = Clock::Duration(std::min(theirs.step_ns(), kStepNsMax));
  if (static_cast<size_t>(theirs.verbs_size()) != verbs_lanes_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the target answered ", verbs_lanes_.size(),
                                                   " queue pairs with ", theirs.verbs_size()));
  }
  for (size_t i = 0; i < verbs_lanes_.size(); ++i) {
    GODWIT_ASSIGN_OR_RETURN(const VerbsEndpoint endpoint,
                            FromProto(theirs.verbs(static_cast<int>(i))));
    GODWIT_RETURN_IF_ERROR(verbs_lanes_[i]->Connect(endpoint));
  }
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::MakeTcpLanes() {
  control::ControlMessage message;
  message.mutable_lane_setup();
  GODWIT_RETURN_IF_ERROR(channel_->Send(message));
  opener_.emplace(lane_address_, LaneGreeting(session_id_, lane_key_), options_.connect_timeout,
                  cancel_->fd());
  for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
    GODWIT_RETURN_IF_ERROR(opener_->Connect());
    KeepAlive();
  }
  lane_factory_ = [this](IoRing& ring) {
    std::vector<std::unique_ptr<Lane>> lanes;
    for (UniqueFd& socket : opener_->Take()) {
      lanes.push_back(TcpLane::Make(std::move(socket), ring, lane_limits_, LaneRole::kSender,
                                    absl::StrCat("tcp ", options_.to)));
    }
    opener_.reset();
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  };
  return absl::OkStatus();
}

// Until the target has all lanes. One that gives up meanwhile says so on the control channel.
absl::StatusOr<control::ControlMessage> SourceSession::Impl::AwaitLanes() {
  const Clock::Duration deadline = Clock::Steady().Now() + options_.answer_timeout;
  while (true) {
    GODWIT_RETURN_IF_ERROR(CheckCancelled());
    GODWIT_ASSIGN_OR_RETURN(auto message, Receive());
    if (message.has_value() && message->has_lane_setup()) {
      if (opener_.has_value() && !opener_->all_connected()) {
        return absl::InvalidArgumentError("the target says that it has lanes which it can't have");
      }
      return *std::move(message);
    }
    if (message.has_value()) return OutOfTurn(*message);
    if (Clock::Steady().Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("peer ", channel_->peer(),
                                                      " is there, but its lanes were not ready in ",
                                                      options_.answer_timeout.count(), " ms"));
    }
    std::vector<pollfd> fds;
    if (opener_.has_value()) {
      GODWIT_RETURN_IF_ERROR(opener_->Tend([this] { KeepAlive(); }));
      opener_->AddPollFds(fds);
    }
    GODWIT_RETURN_IF_ERROR(WaitForEvents(&fds));
  }
}

absl::Status SourceSession::Impl::MakeVerbsLanes() {
  GODWIT_ASSIGN_OR_RETURN(rdma_ports_, RdmaPorts::Open(options_.rdma_device, *arena_));
  control::ControlMessage message;
  control::LaneSetup& setup = *message.mutable_lane_setup();
  for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
    GODWIT_ASSIGN_OR_RETURN(auto made,
                            rdma_ports_->MakeLane(lane, 0, LaneRole::kSender, lane_limits_));
    *setup.add_verbs() = ToProto(made->local());
    verbs_lanes_.push_back(std::move(made));
  }
  lane_factory_ = [this](IoRing& /*ring*/) {
    std::vector<std::unique_ptr<Lane>> lanes;
    for (auto& lane : verbs_lanes_) lanes.push_back(std::move(lane));
    verbs_lanes_.clear();
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  };
  return channel_->Send(message);
}

// The worker reads files in memory itself where there are few processors, unless it has packets to
// seal, which is work enough. What it reads a socket copies at once: both are to find it in cache.
// Where there is a network its delay wants lanes that hold more.
// Queue pairs want packets in bursts, and a NIC fetches them by itself.
size_t SourceSession::Impl::AtOnceBytes() const {
  if (transport_ != TransportKind::kTcp || sealing_ != Sealing::kOff) return 0;
  if (ProcessorsToRunOn() >= kProcessorsToOverlap) return 0;
  const size_t cache_bytes = SecondLevelCacheBytes();
  if (cache_bytes == 0 || !IsOnLoopback(channel_->fd())) return options_.packet_bytes;
  return std::min(std::max(cache_bytes / 4, kAtOnceBytesMin), options_.packet_bytes);
}

absl::Status SourceSession::Impl::StartWorker() {
  loaded_bytes_.resize(devices_.size());
  loaded_packets_.resize(devices_.size());
  packet_trips_.resize(devices_.size());
  std::vector<std::string> names;
  for (const Device* device : devices_) names.push_back(device->name());
  const SourceWorker::Limits limits = {
      options_.packet_bytes, budget_.chain_packets, window_packets_, lane_limits_.queue_packets,
      options_.lanes,        lane_limits_,          transport_,      crc_,
      AtOnceBytes()};
  lane_lives_.resize(options_.lanes);
  queue_pair_attempts_.resize(options_.lanes);
  GODWIT_ASSIGN_OR_RETURN(worker_, SourceWorker::Make(std::move(names), limits, *arena_, events()));
  worker_->SetTrace(trace_);
  GODWIT_RETURN_IF_ERROR(worker_->SetSealing(sealing_, packet_key_));
  GODWIT_RETURN_IF_ERROR(worker_->Start(std::move(lane_factory_)));
  step_threads_.Start();
  for (uint32_t i = 0; i < options_.lanes; ++i) observer_.OnLane({i, /*up=*/true, {}});
  MutexLock lock(statistics_mutex_);
  statistics_ready_ = true;
  return absl::OkStatus();
}

}  // namespace godwit
