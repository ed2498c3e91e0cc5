// The source's side of a session: docs/wire-format.md, section 4, left column.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/buffer_budget.h"
#include "engine/device_steps.h"
#include "engine/session_base.h"
#include "engine/source_worker.h"
#include "godwit/session.h"
#include "transport/tcp/tcp_lane.h"
#include "transport/tcp/tcp_socket.h"
#include "transport/verbs/verbs_device.h"

namespace godwit {

class SourceSession::Impl final : public SessionBase {
 public:
  Impl(SourceOptions options, std::vector<Device*> devices, SessionObserver& observer)
      : SessionBase(std::move(devices), observer), options_(std::move(options)) {}

  SessionReport Run();

 private:
  absl::Status Check() const;
  absl::Status Connect();
  absl::Status Greet();
  absl::Status ExchangeDeviceTables();
  absl::Status MakeArenaAndLanes();
  absl::Status MakeTcpLanes();
  absl::Status MakeVerbsLanes();
  absl::Status StopDevices();
  absl::Status Stream();
  absl::Status TakeReceipts(const control::Receipts& receipts);
  absl::Status CompareLoaded(const control::Loaded& loaded);
  absl::Status CheckStillStopped();
  absl::Status HandOver();
  absl::Status MoveAll();
  absl::Status RollBack();
  void PublishProgress();
  void FillReport(SessionReport& report) const;

  const SourceOptions options_;
  std::string session_id_;
  TransportKind transport_ = TransportKind::kTcp;  // as agreed
  uint32_t window_packets_ = 0;
  SourceBudget budget_;
  LaneLimits lane_limits_;

  std::unique_ptr<VerbsDevice> verbs_device_;
  std::vector<std::unique_ptr<VerbsLane>> verbs_lanes_;  // until the worker has them
  LaneFactory lane_factory_;
  std::vector<UniqueFd> streams_;
  std::vector<std::string> configs_;
  std::unique_ptr<SourceWorker> worker_;

  std::vector<DeviceReport> device_reports_;
  bool left_running_ = false;  // a device may have left RUNNING
  bool committed_ = false;
  Clock::Duration stopped_at_{0};
  Clock::Duration stop_copy_at_{0};
  Clock::Duration loaded_at_{0};
  Clock::Duration done_at_{0};
};

absl::Status SourceSession::Impl::Check() const {
  GODWIT_RETURN_IF_ERROR(CheckMoveTogether(devices_));
  if (options_.lanes < 1 || options_.lanes > kLanesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(options_.lanes, " lanes, a session has 1 to ", kLanesMax));
  }
  if (options_.packet_bytes < 1 || options_.packet_bytes > kPacketBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("packets of ", options_.packet_bytes,
                                                   " bytes, allowed are 1 to ", kPacketBytesMax));
  }
  return CheckRdma(options_.transport, options_.rdma_device);
}

absl::Status SourceSession::Impl::Connect() {
  GODWIT_ASSIGN_OR_RETURN(const TcpAddress address, ParseTcpAddress(options_.to));
  GODWIT_ASSIGN_OR_RETURN(UniqueFd socket, ConnectTcp(address, options_.connect_timeout));
  session_id_.resize(kSessionIdBytes);
  if (::getrandom(session_id_.data(), session_id_.size(), 0) !=
      static_cast<ssize_t>(session_id_.size())) {
    return ErrnoStatus(errno, "getrandom");
  }
  channel_ = std::make_unique<ControlChannel>(std::move(socket), options_.to,
                                              /*expect_preface=*/true);
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::Greet() {
  const bool verbs_here =
      options_.transport == TransportKind::kVerbs ||
      (options_.transport == TransportKind::kAuto && HasUsableRdmaPort(options_.rdma_device));
  control::ControlMessage message;
  control::Hello& hello = *message.mutable_hello();
  hello.set_software(SoftwareName());
  hello.set_session_id(session_id_);
  hello.set_frame_version(kFrameVersion);
  if (verbs_here) hello.add_transports(control::TRANSPORT_VERBS);
  if (options_.transport != TransportKind::kVerbs) hello.add_transports(control::TRANSPORT_TCP);
  hello.set_lanes(options_.lanes);
  hello.set_packet_bytes(options_.packet_bytes);
  GODWIT_RETURN_IF_ERROR(channel_->Send(message));

  GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage answer,
                          Await(control::ControlMessage::kWelcome, "the target's welcome"));
  const control::Welcome& welcome = answer.welcome();
  if (std::find(hello.transports().begin(), hello.transports().end(), welcome.transport()) ==
      hello.transports().end()) {
    return absl::InvalidArgumentError("the target chose a transport that was not offered");
  }
  if (welcome.window_packets() < kWindowPacketsMin ||
      welcome.window_packets() > kWindowPacketsMax || welcome.queue_packets() < kQueuePacketsMin ||
      welcome.queue_packets() > kQueuePacketsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the target's window of ", welcome.window_packets(), " or queue of ",
                     welcome.queue_packets(), " packets is out of bounds"));
  }
  transport_ =
      welcome.transport() == control::TRANSPORT_VERBS ? TransportKind::kVerbs : TransportKind::kTcp;
  window_packets_ = welcome.window_packets();
  lane_limits_ = {kFrameHeaderBytes, PayloadBytesMax(options_.packet_bytes),
                  welcome.queue_packets()};
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::ExchangeDeviceTables() {
  control::ControlMessage message;
  *message.mutable_device_table() = OurDeviceTable();
  uint64_t bytes_total = 0;
  for (const auto& row : message.device_table().devices()) bytes_total += row.stop_copy_bytes();
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
  GODWIT_ASSIGN_OR_RETURN(arena_, Arena::Create(budget_.buffers, lane_limits_.payload_bytes_max));
  GODWIT_RETURN_IF_ERROR(transport_ == TransportKind::kVerbs ? MakeVerbsLanes() : MakeTcpLanes());
  GODWIT_ASSIGN_OR_RETURN(
      const control::ControlMessage answer,
      Await(control::ControlMessage::kLaneSetup, "the target's lanes to be ready"));
  const control::LaneSetup& theirs = answer.lane_setup();
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
  GODWIT_ASSIGN_OR_RETURN(const TcpAddress address, ParseTcpAddress(options_.to));
  auto sockets = std::make_shared<std::vector<UniqueFd>>();
  for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
    GODWIT_ASSIGN_OR_RETURN(UniqueFd socket, ConnectTcp(address, options_.connect_timeout));
    TuneLaneSocket(socket.get());
    const auto preface = LanePreface(session_id_, lane);
    GODWIT_RETURN_IF_ERROR(
        WriteAll(socket.get(), {reinterpret_cast<const std::byte*>(preface.data()), preface.size()},
                 std::chrono::steady_clock::now() + options_.connect_timeout));
    sockets->push_back(std::move(socket));
    KeepAlive();
  }
  lane_factory_ = [this, sockets](IoRing& ring) {
    std::vector<std::unique_ptr<Lane>> lanes;
    for (UniqueFd& socket : *sockets) {
      lanes.push_back(TcpLane::Make(std::move(socket), ring, lane_limits_, LaneRole::kSender,
                                    absl::StrCat("tcp ", options_.to)));
    }
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  };
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::MakeVerbsLanes() {
  GODWIT_ASSIGN_OR_RETURN(verbs_device_,
                          VerbsDevice::Open(RdmaOptions(options_.rdma_device), *arena_));
  control::ControlMessage message;
  control::LaneSetup& setup = *message.mutable_lane_setup();
  for (uint32_t lane = 0; lane < options_.lanes; ++lane) {
    GODWIT_ASSIGN_OR_RETURN(auto made,
                            VerbsLane::Create(*verbs_device_, LaneRole::kSender, lane_limits_));
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

absl::Status SourceSession::Impl::StopDevices() {
  SetPhase(SessionPhase::kStopping);
  const auto keep_alive = [this] { KeepAlive(); };
  stopped_at_ = Clock::Steady().Now();
  left_running_ = true;
  if (devices_.size() > 1) {
    GODWIT_RETURN_IF_ERROR(SetStates(devices_, DeviceState::kRunningP2p, nullptr, keep_alive));
  }
  GODWIT_RETURN_IF_ERROR(SetStates(devices_, DeviceState::kStopCopy, &streams_, keep_alive));
  return SaveConfigs(devices_, configs_, keep_alive);
}

absl::Status SourceSession::Impl::Stream() {
  SetPhase(SessionPhase::kStreaming);
  stop_copy_at_ = Clock::Steady().Now();
  std::vector<SourceWorker::Stream> streams(devices_.size());
  for (size_t i = 0; i < devices_.size(); ++i) {
    streams[i] = {devices_[i]->name(), std::move(streams_[i]), configs_[i]};
  }
  const SourceWorker::Limits limits = {options_.packet_bytes, budget_.chain_packets,
                                       window_packets_, lane_limits_.queue_packets, options_.lanes};
  GODWIT_ASSIGN_OR_RETURN(worker_,
                          SourceWorker::Make(std::move(streams), limits, *arena_, events()));
  GODWIT_RETURN_IF_ERROR(worker_->Start(std::move(lane_factory_)));

  while (true) {
    GODWIT_ASSIGN_OR_RETURN(std::optional<control::ControlMessage> message, Receive());
    if (message.has_value()) {
      switch (message->message_case()) {
        case control::ControlMessage::kReceipts:
          GODWIT_RETURN_IF_ERROR(TakeReceipts(message->receipts()));
          // A target that sends nothing else must not keep us from hearing of a Cancel().
          if (cancelled()) return absl::CancelledError("cancelled");
          continue;
        case control::ControlMessage::kLoaded:
          loaded_at_ = Clock::Steady().Now();
          // The target can be quicker with its answer than the worker with noting that it has sent
          // the last packet: let it finish that.
          worker_->Stop();
          PublishProgress();
          return CompareLoaded(message->loaded());
        default:
          return OutOfTurn(*message);
      }
    }
    if (worker_->failed()) return worker_->status();
    PublishProgress();
    GODWIT_RETURN_IF_ERROR(WaitForEvents());
  }
}

absl::Status SourceSession::Impl::TakeReceipts(const control::Receipts& receipts) {
  if (static_cast<uint32_t>(receipts.lane_packets_size()) != options_.lanes ||
      static_cast<size_t>(receipts.device_packets_size()) != devices_.size()) {
    return absl::InvalidArgumentError("the target's receipts are for other lanes and devices");
  }
  for (int i = 0; i < receipts.lane_packets_size(); ++i) {
    worker_->PutLaneReceipt(static_cast<size_t>(i), receipts.lane_packets(i));
  }
  for (int i = 0; i < receipts.device_packets_size(); ++i) {
    worker_->PutLoaded(static_cast<size_t>(i), receipts.device_packets(i));
  }
  worker_->Wake();
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::CompareLoaded(const control::Loaded& loaded) {
  if (static_cast<size_t>(loaded.devices_size()) != devices_.size() || !worker_->all_sent()) {
    return absl::InvalidArgumentError("the target says that it has loaded what was not sent");
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    const control::Loaded::Device& theirs = loaded.devices(static_cast<int>(i));
    const SourceWorker::DeviceCounters& ours = worker_->device_counters(i);
    DeviceReport& report = device_reports_[i];
    report.sent_crc32c = ours.stream_crc.load(std::memory_order_relaxed);
    report.loaded_crc32c = theirs.crc32c();
    report.content_verified = theirs.content_verified();
    report.out_of_order_packets = theirs.out_of_order_packets();
    const uint64_t bytes = ours.bytes.load(std::memory_order_relaxed);
    if (theirs.bytes() != bytes || report.loaded_crc32c != report.sent_crc32c) {
      return absl::DataLossError(absl::StrFormat(
          "device %s: %u bytes with CRC-32C %08x were sent, but %u bytes with %08x were loaded",
          devices_[i]->name(), bytes, report.sent_crc32c, theirs.bytes(), report.loaded_crc32c));
    }
  }
  return absl::OkStatus();
}

// A device that was reset behind our back runs: what the target has is not its state any more.
absl::Status SourceSession::Impl::CheckStillStopped() {
  return ForEachDevice(
      devices_.size(),
      [this](size_t i) -> absl::Status {
        const std::string where = absl::StrCat("device ", devices_[i]->name());
        const absl::StatusOr<DeviceState> state = devices_[i]->State();
        if (!state.ok()) return Annotate(state.status(), where);
        if (*state == DeviceState::kStopCopy) return absl::OkStatus();
        return absl::DataLossError(absl::StrCat(where, ": it is in ", DeviceStateName(*state),
                                                ", though nobody took it out of STOP_COPY"));
      },
      [this] { KeepAlive(); });
}

absl::Status SourceSession::Impl::HandOver() {
  SetPhase(SessionPhase::kHandingOver);
  worker_->Stop();
  GODWIT_RETURN_IF_ERROR(CheckStillStopped());
  GODWIT_RETURN_IF_ERROR(SetStates(devices_, DeviceState::kStop, nullptr, [this] { KeepAlive(); }));
  // Only receipts can be on the way now. Above all no Done: it would be taken for the answer.
  while (true) {
    GODWIT_ASSIGN_OR_RETURN(const auto early, Receive());
    if (!early.has_value()) break;
    if (!early->has_receipts()) return OutOfTurn(*early);
  }
  control::ControlMessage message;
  message.mutable_commit();
  // From here on the target may run: the source never resumes by itself.
  committed_ = true;
  GODWIT_RETURN_IF_ERROR(channel_->Send(message));
  while (true) {
    GODWIT_ASSIGN_OR_RETURN(std::optional<control::ControlMessage> answer, Receive());
    if (answer.has_value()) {
      if (answer->has_done()) break;
      if (!answer->has_receipts()) return OutOfTurn(*answer);
      continue;  // sent before it had our Commit
    }
    const absl::Status waited = WaitForEvents();
    // Too late to cancel: the answer decides.
    if (!waited.ok() && !absl::IsCancelled(waited)) return waited;
  }
  done_at_ = Clock::Steady().Now();
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::MoveAll() {
  GODWIT_RETURN_IF_ERROR(Check());
  GODWIT_RETURN_IF_ERROR(MakeNotifiers());
  SetPhase(SessionPhase::kConnecting);
  GODWIT_RETURN_IF_ERROR(Connect());
  GODWIT_RETURN_IF_ERROR(Greet());
  GODWIT_RETURN_IF_ERROR(ExchangeDeviceTables());
  GODWIT_RETURN_IF_ERROR(MakeArenaAndLanes());
  GODWIT_RETURN_IF_ERROR(StopDevices());
  GODWIT_RETURN_IF_ERROR(Stream());
  return HandOver();
}

// Puts every device back to RUNNING.
absl::Status SourceSession::Impl::RollBack() {
  if (worker_ != nullptr) worker_->Stop();
  streams_.clear();
  if (!left_running_) return absl::OkStatus();
  return PutBackToRunning(devices_, observer_, [this] { KeepAlive(); });
}

SessionReport SourceSession::Impl::Run() {
  const Clock::Duration start = Clock::Steady().Now();
  device_reports_.resize(devices_.size());
  SessionReport report;
  absl::Status status = MoveAll();
  if (status.ok()) {
    report.outcome = SessionOutcome::kDone;
  } else if (committed_) {
    report.outcome = SessionOutcome::kInDoubt;
    status = Annotate(status,
                      "contact was lost after the target was told to run the devices; they stay "
                      "stopped here: look at the target before you resume either side");
  } else {
    // The devices come first: whatever the peer may still have to say, a VM waits for them.
    SendAbort(status);
    const absl::Status rolled_back = RollBack();
    status = WithRollBack(PreferPeersReason(std::move(status)), rolled_back);
    Linger();
    report.outcome = SessionOutcome::kRolledBack;
  }
  report.status = status;
  report.duration = Clock::Steady().Now() - start;
  FillReport(report);
  // The lanes' memory region goes before the arena.
  if (worker_ != nullptr) worker_->Stop();
  for (auto& lane : verbs_lanes_) CloseLane(std::move(lane));
  verbs_lanes_.clear();
  verbs_device_.reset();
  channel_.reset();  // the peer need not wait for silence
  SetPhase(SessionPhase::kFinished);
  return report;
}

void SourceSession::Impl::PublishProgress() {
  uint64_t bytes = 0;
  for (size_t i = 0; i < devices_.size(); ++i) {
    bytes += worker_->device_counters(i).bytes.load(std::memory_order_relaxed);
  }
  progress_bytes_.store(bytes, std::memory_order_relaxed);
}

void SourceSession::Impl::FillReport(SessionReport& report) const {
  report.peer = options_.to;
  report.devices = device_reports_;
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceReport& device = report.devices[i];
    device.name = devices_[i]->name();
    device.kind = std::string(devices_[i]->kind());
    if (worker_ == nullptr) continue;
    device.bytes = worker_->device_counters(i).bytes.load(std::memory_order_relaxed);
    device.packets = worker_->device_counters(i).packets.load(std::memory_order_relaxed);
    report.bytes += device.bytes;
    report.packets += device.packets;
  }
  if (worker_ != nullptr) {
    for (uint32_t i = 0; i < options_.lanes; ++i) {
      const SourceWorker::LaneCounters& lane = worker_->lane_counters(i);
      report.lanes.push_back({std::string(TransportName(transport_)),
                              lane.bytes.load(std::memory_order_relaxed),
                              lane.packets.load(std::memory_order_relaxed)});
    }
  }
  if (report.outcome == SessionOutcome::kDone) {
    report.downtime = done_at_ - stopped_at_;
    report.stream_time = loaded_at_ - stop_copy_at_;
  }
  if (arena_ != nullptr) {
    report.arena_backing = arena_->backing_name();
    report.arena_bytes = arena_->size_bytes();
  }
}

SourceSession::SourceSession(SourceOptions options, std::vector<Device*> devices,
                             SessionObserver& observer)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(devices), observer)) {}
SourceSession::~SourceSession() = default;
SessionReport SourceSession::Run() { return impl_->Run(); }
void SourceSession::Cancel() { impl_->Cancel(); }
SessionProgress SourceSession::progress() const { return impl_->progress(); }

}  // namespace godwit
