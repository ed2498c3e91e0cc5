// The source's side of a ping.
#include "godwit/ping.h"

#include <absl/strings/str_cat.h>
#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/buffer_budget.h"
#include "engine/contact.h"
#include "engine/packet.h"
#include "engine/ping_control.h"
#include "engine/ping_worker.h"
#include "engine/rdma_ports.h"
#include "engine/session_base.h"
#include "engine/session_offer.h"
#include "transport/lane_proof.h"
#include "transport/tcp/tcp_lane.h"

namespace godwit {
namespace {

constexpr std::chrono::seconds kAnswerTimeout{5};
constexpr std::chrono::seconds kProbesWait{1};
constexpr std::chrono::seconds kEndWait{1};
constexpr std::chrono::milliseconds kShortest{1};  // what is left of a time that is over
// Buffers, and packets without a receipt: so that no lane takes another's.
constexpr uint32_t kPacketsALane = 4;

absl::Status OutOfTurn() {
  return absl::InvalidArgumentError("the target sent a control message out of turn");
}

// One ping, from contact to the last receipt.
class Pinger {
 public:
  explicit Pinger(const PingOptions& options)
      : options_(options),
        offer_{options.transport, options.rdma_device, options.lanes, options.packet_bytes,
               options.trust.seal} {}
  ~Pinger() {
    worker_.reset();
    for (auto& lane : verbs_lanes_) CloseLane(std::move(lane));
  }
  Pinger(const Pinger&) = delete;
  Pinger& operator=(const Pinger&) = delete;

  absl::StatusOr<PingReport> Run();

 private:
  absl::Status Check() const;
  absl::Status Greet();
  absl::StatusOr<control::ControlMessage> AskForWelcome(bool verbs_here, control::Hello& hello);
  absl::Status TimeRoundTrip();
  absl::Status MakeLanes();
  absl::Status MakeTcpLanes();
  absl::Status MakeVerbsLanes(control::LaneSetup& setup);
  absl::Status ConnectVerbsLanes(const control::LaneSetup& theirs);
  absl::Status Send();
  absl::StatusOr<bool> TakeReceipts();
  absl::StatusOr<control::ControlMessage> Await(control::ControlMessage::MessageCase wanted,
                                                const char* name) {
    return AwaitMessage(*contact_.channel, wanted, name, set_up_by_);
  }

  const PingOptions& options_;
  const SessionOffer offer_;
  PingReport report_;
  std::unique_ptr<TlsContext> tls_;  // null: plain
  std::string session_id_ = std::string(kSessionIdBytes, '\0');
  Contact contact_;
  Clock::Duration set_up_by_{0};
  std::optional<Notifier> events_;
  LaneLimits limits_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<RdmaPorts> rdma_ports_;
  std::vector<UniqueFd> sockets_;                        // until the worker has them
  std::vector<std::unique_ptr<VerbsLane>> verbs_lanes_;  // until the worker has them
  std::unique_ptr<PingWorker> worker_;
  std::vector<uint64_t> receipts_;  // by lane
};

absl::StatusOr<PingReport> Pinger::Run() {
  GODWIT_RETURN_IF_ERROR(Check());
  GODWIT_ASSIGN_OR_RETURN(tls_, TlsContext::Make(options_.trust, TlsRole::kClient));
  if (::getrandom(session_id_.data(), session_id_.size(), 0) !=
      static_cast<ssize_t>(session_id_.size())) {
    return ErrnoStatus(errno, "getrandom");
  }
  GODWIT_ASSIGN_OR_RETURN(
      contact_, ContactTarget(options_.to, options_.trust, tls_.get(), options_.connect_timeout));
  set_up_by_ = Clock::Steady().Now() + kAnswerTimeout;
  report_.peer = options_.to;
  report_.trust = options_.trust.kind();
  GODWIT_RETURN_IF_ERROR(Greet());
  GODWIT_RETURN_IF_ERROR(TimeRoundTrip());
  GODWIT_RETURN_IF_ERROR(MakeLanes());
  GODWIT_RETURN_IF_ERROR(Send());
  contact_.channel->EndSending();
  // When it has closed its own end it can answer the next ping.
  (void)AwaitMessage(*contact_.channel, control::ControlMessage::MESSAGE_NOT_SET, "its end",
                     Clock::Steady().Now() + kEndWait);
  return report_;
}

absl::Status Pinger::Check() const {
  if (options_.time.count() < 1 || options_.time > kPingTimeMax) {
    return absl::InvalidArgumentError(absl::StrCat("packets for ", options_.time.count(),
                                                   " ms, allowed are 1 ms to ",
                                                   kPingTimeMax.count(), " s"));
  }
  return CheckOffer(offer_);
}

absl::StatusOr<control::ControlMessage> Pinger::AskForWelcome(bool verbs_here,
                                                              control::Hello& hello) {
  hello = HelloOf(offer_, verbs_here, session_id_, contact_.channel->fd());
  hello.set_ping(true);
  control::ControlMessage message;
  *message.mutable_hello() = hello;
  GODWIT_RETURN_IF_ERROR(contact_.channel->Send(message));
  return Await(control::ControlMessage::kWelcome, "the target's welcome");
}

absl::Status Pinger::Greet() {
  const bool verbs_here = OffersVerbs(offer_);
  control::Hello hello;
  absl::StatusOr<control::ControlMessage> answer = AskForWelcome(verbs_here, hello);
  for (const std::chrono::milliseconds wait : kNoRoomWaits) {
    if (answer.ok() || !MayHaveHadNoRoom(answer.status(), *contact_.channel)) break;
    std::this_thread::sleep_for(wait);
    auto contact = ContactTarget(options_.to, options_.trust, tls_.get(), kNoRoomConnectTimeout);
    if (!contact.ok()) break;  // gone: the hang-up says more
    contact_ = *std::move(contact);
    answer = AskForWelcome(verbs_here, hello);
  }
  if (!answer.ok()) return ExplainHangUp(answer.status());
  const control::Welcome& welcome = answer->welcome();
  GODWIT_RETURN_IF_ERROR(CheckWelcome(hello, welcome));
  report_.peer_software = Printable(welcome.software());
  report_.transport =
      welcome.transport() == control::TRANSPORT_VERBS ? TransportKind::kVerbs : TransportKind::kTcp;
  if (report_.transport == TransportKind::kTcp) {
    report_.why_not_rdma = options_.transport == TransportKind::kTcp ? "RDMA was not asked for"
                           : !verbs_here
                               ? "this host has no RDMA port that is up: see godwit devices"
                               : "the target has no RDMA port that is up, or accepts TCP only";
  }
  GODWIT_ASSIGN_OR_RETURN(report_.sealing, FromProto(welcome.sealing()));
  limits_ = {kFrameHeaderBytes, PayloadBytesMax(options_.packet_bytes),
             std::min(welcome.queue_packets(), kPacketsALane)};
  GODWIT_ASSIGN_OR_RETURN(
      const control::ControlMessage table,
      Await(control::ControlMessage::kDeviceTable, "the target's device table"));
  for (const auto& row : table.device_table().devices()) {
    report_.devices.push_back({Printable(row.name()), Printable(row.kind())});
  }
  return absl::OkStatus();
}

// Without answers, which nobody owes, it is the kernel's smoothed one.
absl::Status Pinger::TimeRoundTrip() {
  const Clock::Duration deadline = Clock::Steady().Now() + kProbesWait;
  ControlChannel& channel = *contact_.channel;
  while (!channel.probed() && Clock::Steady().Now() < deadline) {
    GODWIT_RETURN_IF_ERROR(channel.Probe());
    GODWIT_ASSIGN_OR_RETURN(const auto message, NextMessage(channel));
    if (message.has_value()) return OutOfTurn();
    SleepOn(channel, {});
  }
  report_.round_trip = channel.round_trip();
  return absl::OkStatus();
}

absl::Status Pinger::MakeLanes() {
  GODWIT_ASSIGN_OR_RETURN(
      arena_, Arena::Create(size_t{kPacketsALane} * options_.lanes, limits_.payload_bytes_max));
  GODWIT_ASSIGN_OR_RETURN(Notifier events, Notifier::Create());
  events_.emplace(std::move(events));
  control::ControlMessage message;
  control::LaneSetup& setup = *message.mutable_lane_setup();
  const bool verbs = report_.transport == TransportKind::kVerbs;
  if (verbs) GODWIT_RETURN_IF_ERROR(MakeVerbsLanes(setup));
  GODWIT_RETURN_IF_ERROR(contact_.channel->Send(message));
  if (!verbs) GODWIT_RETURN_IF_ERROR(MakeTcpLanes());
  GODWIT_ASSIGN_OR_RETURN(
      const control::ControlMessage answer,
      Await(control::ControlMessage::kLaneSetup, "the target's lanes to be ready"));
  if (verbs) GODWIT_RETURN_IF_ERROR(ConnectVerbsLanes(answer.lane_setup()));
  receipts_.resize(options_.lanes);
  GODWIT_ASSIGN_OR_RETURN(
      worker_, PingWorker::Make(LaneRole::kSender, limits_, options_.packet_bytes, options_.lanes,
                                *arena_, *events_));
  return absl::OkStatus();
}

absl::Status Pinger::MakeTcpLanes() {
  const LaneGreeting greeting(session_id_, std::nullopt);
  for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(set_up_by_ - Clock::Steady().Now());
    GODWIT_ASSIGN_OR_RETURN(UniqueFd socket,
                            ConnectTcp(contact_.lane_address, std::max(left, kShortest)));
    TuneLaneSocket(socket.get());
    GODWIT_RETURN_IF_ERROR(
        greeting.Announce(socket.get(), static_cast<uint16_t>(lane), /*generation=*/0,
                          std::chrono::steady_clock::now() + std::max(left, kShortest)));
    sockets_.push_back(std::move(socket));
  }
  return absl::OkStatus();
}

absl::Status Pinger::MakeVerbsLanes(control::LaneSetup& setup) {
  GODWIT_ASSIGN_OR_RETURN(rdma_ports_, RdmaPorts::Open(options_.rdma_device, *arena_));
  for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
    GODWIT_ASSIGN_OR_RETURN(auto made, rdma_ports_->MakeLane(lane, 0, LaneRole::kSender, limits_));
    *setup.add_verbs() = ToProto(made->local());
    verbs_lanes_.push_back(std::move(made));
  }
  return absl::OkStatus();
}

absl::Status Pinger::ConnectVerbsLanes(const control::LaneSetup& theirs) {
  if (static_cast<size_t>(theirs.verbs_size()) != verbs_lanes_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the target answered ", verbs_lanes_.size(),
                                                   " queue pairs with ", theirs.verbs_size()));
  }
  for (size_t i = 0; i < verbs_lanes_.size(); ++i) {
    GODWIT_ASSIGN_OR_RETURN(const VerbsEndpoint endpoint,
                            FromProto(theirs.verbs(static_cast<int>(i))));
    GODWIT_RETURN_IF_ERROR(verbs_lanes_[i]->Connect(endpoint));
    // The smaller end's, as Connect() takes it; verbs count 1 for 256 bytes, 2 for 512, …
    const uint32_t mtu = uint32_t{128} << std::min(verbs_lanes_[i]->local().mtu, endpoint.mtu);
    report_.mtu_bytes = i == 0 ? mtu : std::min(report_.mtu_bytes, mtu);
  }
  return absl::OkStatus();
}

absl::Status Pinger::Send() {
  const Clock::Duration begin = Clock::Steady().Now();
  GODWIT_RETURN_IF_ERROR(worker_->Start([this](IoRing& ring) {
    std::vector<std::unique_ptr<Lane>> lanes;
    for (auto& lane : verbs_lanes_) lanes.push_back(std::move(lane));
    verbs_lanes_.clear();
    for (UniqueFd& socket : sockets_) {
      lanes.push_back(TcpLane::Make(std::move(socket), ring, limits_, LaneRole::kSender,
                                    absl::StrCat("tcp ", options_.to)));
    }
    for (const auto& lane : lanes) report_.lanes.push_back(lane->name());
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  }));
  const Clock::Duration end = begin + options_.time;
  const Clock::Duration deadline = end + kAnswerTimeout;
  while (true) {
    if (worker_->failed()) return worker_->status();
    GODWIT_ASSIGN_OR_RETURN(const bool all_came, TakeReceipts());
    const Clock::Duration now = Clock::Steady().Now();
    if (worker_->ended() && all_came) break;
    if (now > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the target did not receive all packets in ", kAnswerTimeout.count(),
          " s: see that the path carries full packets (MTU), and RDMA's UDP port 4791"));
    }
    if (now >= end) {
      worker_->EndSending();
      worker_->Wake();
    }
    SleepOn(*contact_.channel, {events_->fd()});
    events_->Clear();
  }
  report_.time = Clock::Steady().Now() - begin;
  for (const uint64_t packets : receipts_) report_.bytes += packets * options_.packet_bytes;
  worker_.reset();
  return absl::OkStatus();
}

// Whether all that was sent has come.
absl::StatusOr<bool> Pinger::TakeReceipts() {
  while (true) {
    GODWIT_ASSIGN_OR_RETURN(const auto message, NextMessage(*contact_.channel));
    if (!message.has_value()) break;
    const auto& packets = message->receipts().lane_packets();
    if (!message->has_receipts() || static_cast<size_t>(packets.size()) != receipts_.size()) {
      return OutOfTurn();
    }
    for (size_t i = 0; i < receipts_.size(); ++i) {
      const uint64_t now = packets[static_cast<int>(i)];
      if (now < receipts_[i] || now > worker_->packets(i)) {
        return absl::InvalidArgumentError(absl::StrCat("the target receipts ", now, " packets of ",
                                                       worker_->packets(i), " on lane ", i));
      }
      receipts_[i] = now;
      worker_->TakeReceipt(i, now);
    }
  }
  for (size_t i = 0; i < receipts_.size(); ++i) {
    if (receipts_[i] != worker_->packets(i)) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<PingReport> Ping(const PingOptions& options) { return Pinger(options).Run(); }

}  // namespace godwit
