// The source's side of a session from the stop of its devices on: docs/wire-format.md, section 4.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/thread_name.h"
#include "engine/device_steps.h"
#include "engine/source_impl.h"
#include "engine/switchover.h"

namespace godwit {
namespace {

// Lanes that wait for less are not worth telling of.
constexpr std::chrono::milliseconds kWaitTold{100};

}  // namespace

absl::Status SourceSession::Impl::StopDevices() {
  SetPhase(SessionPhase::kStopping);
  const auto meanwhile = [this] { MeanwhileTakeReceipts(); };
  control::ControlMessage message;
  message.mutable_stopping()->set_receipt_packets(PacketsWithoutReceipt());
  GODWIT_RETURN_IF_ERROR(CheckCancelled());
  GODWIT_RETURN_IF_ERROR(channel_->Send(message));
  stopped_at_ = Clock::Steady().Now();
  if (options_.vm.stop_vcpus) {
    vcpus_stopped_ = true;
    GODWIT_RETURN_IF_ERROR(Annotate(options_.vm.stop_vcpus(), "stopping the vCPUs"));
  }
  GODWIT_RETURN_IF_ERROR(CheckCancelled());
  left_running_ = true;
  if (devices_.size() > 1) {
    const absl::Status quiet = Quiesce(step_threads_, devices_, meanwhile, &steps_);
    TellSteps();
    GODWIT_RETURN_IF_ERROR(quiet);
    GODWIT_RETURN_IF_ERROR(CheckCancelled());
  }
  stop_copy_at_ = Clock::Steady().Now();
  worker_->SpinFor(options_.spin);
  const absl::Status stopped =
      step_threads_.ForEach([this](size_t i) { return ToStopCopy(i); }, meanwhile);
  TellSteps();
  GODWIT_RETURN_IF_ERROR(stopped);
  return meanwhile_error_;
}

// For how many packets the target may hold a receipt without keeping us waiting: half of what may
// be unreceipted, or three quarters where not even a packet is under way in a round trip; and what
// the lanes have room for beyond what is under way. A target that has so few processors as to hold
// them is taken to be no faster than that: with two of them a session made 3.5 GiB/s at most
// (docs/performance.md).
uint32_t SourceSession::Impl::PacketsWithoutReceipt() const {
  constexpr double kBytesPerSecondMax = 4e9;
  const size_t packet_bytes = AtOnceBytes() > 0 ? AtOnceBytes() : options_.packet_bytes;
  const double round_trip_s = std::chrono::duration<double>(channel_->round_trip()).count();
  const double under_way = round_trip_s * kBytesPerSecondMax / static_cast<double>(packet_bytes);
  const double room = static_cast<double>(options_.lanes) * lane_limits_.queue_packets - under_way;
  const double part = under_way < 1 ? 0.75 : 0.5;
  return static_cast<uint32_t>(std::clamp(room, 0.0, budget_.unreceipted_packets * part));
}

// Each stream goes on as soon as its own device is there; what the others still do is no loss.
absl::Status SourceSession::Impl::ToStopCopy(size_t device) {
  Device& stopping = *devices_[device];
  if (watches_[device] == nullptr) {
    GODWIT_ASSIGN_OR_RETURN(UniqueFd stream,
                            OpenStream(stopping, device, DeviceState::kStopCopy, &steps_));
    worker_->Open(device, std::move(stream), DeviceState::kStopCopy, nullptr,
                  stop_copy_bytes_[device]);
  } else {
    GODWIT_ASSIGN_OR_RETURN(const UniqueFd stream,
                            SetStateOf(stopping, device, DeviceState::kStopCopy, &steps_));
    if (stream.valid()) {
      return absl::DataLossError(absl::StrCat(
          "device ", stopping.name(),
          ": in STOP_COPY it begins a new stream, so it was reset since it went to PRE_COPY"));
    }
    const uint64_t read_bytes =
        worker_->device_counters(device).read_bytes.load(std::memory_order_relaxed);
    worker_->EnterStopCopy(device, RemainingBytes(watches_[device]->estimate(), read_bytes,
                                                  stop_copy_bytes_[device], Clock::Steady().Now()));
  }
  GODWIT_ASSIGN_OR_RETURN(std::string config, SaveConfig(device));
  worker_->SetConfig(device, std::move(config));
  return absl::OkStatus();
}

absl::StatusOr<std::string> SourceSession::Impl::SaveConfig(size_t device) {
  if (!options_.vm.save_config) return SaveConfigOf(*devices_[device]);
  const std::string where =
      absl::StrCat("device ", devices_[device]->name(), ": the VMM's saving of its configuration");
  absl::StatusOr<std::string> config = options_.vm.save_config(device);
  if (!config.ok()) return Annotate(config.status(), where);
  if (config->size() <= kConfigBytesMax) return config;
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", config->size(), " bytes, at most ",
                                                 kConfigBytesMax, " can be moved"));
}

absl::Status SourceSession::Impl::Stream() {
  SetPhase(SessionPhase::kStreaming);
  progress_at_ = Clock::Steady().Now();
  if (early_loaded_.has_value()) return TakeLoaded(*early_loaded_);
  while (true) {
    GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage* const message, Next());
    if (message != nullptr) {
      // A copy, since it asks for the next message.
      if (message->has_loaded()) return TakeLoaded(control::Loaded(message->loaded()));
      GODWIT_ASSIGN_OR_RETURN(const bool taken, TakeFlow(*message));
      if (!taken) return OutOfTurn(*message);
      // A target that sends nothing else must not keep us from hearing of a Cancel().
      GODWIT_RETURN_IF_ERROR(CheckCancelled());
      continue;
    }
    if (worker_->failed()) return worker_->status();
    GODWIT_RETURN_IF_ERROR(FollowLanes());
    TellWaits();
    GODWIT_RETURN_IF_ERROR(CheckProgress());
    PublishProgress();
    GODWIT_RETURN_IF_ERROR(WaitForEvents());
  }
}

// A VM that stands still must not wait for ever for a target that lives and does nothing.
absl::Status SourceSession::Impl::CheckProgress() {
  if (Clock::Steady().Now() - progress_at_ <= options_.progress_timeout) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("nothing more was loaded at the target for ", options_.progress_timeout.count(),
                   " ms, though it answers: is its device, or ours, stuck?"));
}

absl::Status SourceSession::Impl::TakeReceipts(const control::Receipts& receipts) {
  if (static_cast<uint32_t>(receipts.lane_packets_size()) != options_.lanes ||
      static_cast<size_t>(receipts.device_packets_size()) != devices_.size() ||
      static_cast<size_t>(receipts.device_bytes_size()) != devices_.size()) {
    return absl::InvalidArgumentError("the target's receipts are for other lanes and devices");
  }
  for (int i = 0; i < receipts.lane_packets_size(); ++i) {
    worker_->PutLaneReceipt(static_cast<size_t>(i), receipts.lane_packets(i));
  }
  for (int i = 0; i < receipts.device_packets_size(); ++i) {
    const auto device = static_cast<size_t>(i);
    worker_->PutLoaded(device, receipts.device_packets(i));
    if (receipts.device_packets(i) != loaded_packets_[device]) {
      progress_at_ = Clock::Steady().Now();
    }
    loaded_packets_[device] = receipts.device_packets(i);
    loaded_bytes_[device] = receipts.device_bytes(i);
    NoteTrip(device);
  }
  worker_->Wake();
  return absl::OkStatus();
}

absl::Status SourceSession::Impl::TakeLoaded(const control::Loaded& loaded) {
  loaded_at_ = Clock::Steady().Now();
  worker_->SpinFor(Clock::Duration(0));
  StopMakingLanes();  // none is needed any more
  PublishProgress();
  lane_finish_lag_ = Clock::Duration(static_cast<int64_t>(
      std::min<uint64_t>(loaded.lane_finish_lag_ns(), std::numeric_limits<int64_t>::max())));
  GODWIT_RETURN_IF_ERROR(CompareLoaded(loaded));
  return AwaitStreamsClosed();
}

// The worker itself and its lanes can wait until the devices run again: taking an io_uring down
// takes milliseconds.
absl::Status SourceSession::Impl::AwaitStreamsClosed() {
  while (!worker_->streams_closed()) {
    GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage* const message, Next());
    if (message != nullptr) {
      GODWIT_ASSIGN_OR_RETURN(const bool taken, TakeFlow(*message));
      if (!taken) return OutOfTurn(*message);
      continue;  // of what has been loaded
    }
    if (worker_->failed()) return worker_->status();
    GODWIT_RETURN_IF_ERROR(WaitForEvents());
  }
  return absl::OkStatus();
}

void SourceSession::Impl::MeanwhileTakeReceipts() {
  KeepAlive();
  if (meanwhile_error_.ok()) meanwhile_error_ = FollowLanes();
  while (meanwhile_error_.ok()) {
    const absl::StatusOr<const control::ControlMessage*> message = Next();
    if (!message.ok()) {
      meanwhile_error_ = message.status();
    } else if (*message == nullptr) {
      return;
    } else if ((*message)->has_loaded() && stop_copy_at_.count() > 0 && !early_loaded_) {
      // The last device's packets are on their way before the step that took it there is over.
      early_loaded_ = (*message)->loaded();
    } else {
      const absl::StatusOr<bool> taken = TakeFlow(**message);
      meanwhile_error_ = taken.ok() && !*taken ? OutOfTurn(**message) : taken.status();
    }
  }
}

// No lane is made again from here on.
void SourceSession::Impl::StopWorker() {
  StopMakingLanes();
  if (worker_ != nullptr) worker_->Stop();
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

absl::Status SourceSession::Impl::MoveAll() {
  GODWIT_RETURN_IF_ERROR(Check());
  GODWIT_RETURN_IF_ERROR(MakeNotifiers());
  SetPhase(SessionPhase::kConnecting);
  GODWIT_RETURN_IF_ERROR(Connect());
  GODWIT_RETURN_IF_ERROR(Greet());
  GODWIT_RETURN_IF_ERROR(ExchangeDeviceTables());
  GODWIT_RETURN_IF_ERROR(MakeArenaAndLanes());
  GODWIT_RETURN_IF_ERROR(StartWorker());
  GODWIT_RETURN_IF_ERROR(PreCopy());
  GODWIT_RETURN_IF_ERROR(StopDevices());
  GODWIT_RETURN_IF_ERROR(Stream());
  return HandOver();
}

SessionReport SourceSession::Impl::Run() {
  const Clock::Duration start = Clock::Steady().Now();
  device_reports_.resize(devices_.size());
  SessionReport report;
  absl::Status status = MoveAll();
  if (status.ok()) {
    report.outcome = SessionOutcome::kDone;
  } else if (committed_ && !target_rolled_back_) {
    report.outcome = SessionOutcome::kInDoubt;
    status = Annotate(status,
                      "contact was lost after the target was told to run the devices; they stay "
                      "stopped here: look at the target before you resume either side");
  } else {
    // The devices come first: whatever the peer may still have to say, a VM waits for them.
    if (!committed_) SendAbort(status, /*last=*/true);
    const absl::Status rolled_back = RollBack();
    if (committed_) SendForget();
    status = WithRollBack(committed_ ? status : PreferPeersReason(status), rolled_back);
    Linger();
    report.outcome = SessionOutcome::kRolledBack;
  }
  report.status = status;
  report.duration = Clock::Steady().Now() - start;
  FillReport(report);
  // The lanes' memory region goes before the arena.
  StopWorker();
  for (auto& lane : verbs_lanes_) CloseLane(std::move(lane));
  verbs_lanes_.clear();
  rdma_ports_.reset();
  channel_.reset();  // the peer need not wait for silence
  step_threads_.Stop();
  SetPhase(SessionPhase::kFinished);
  return report;
}

// Tells of lanes that wait, as often as the time doubles.
void SourceSession::Impl::TellWaits() {
  const auto tell = [](Clock::Duration since, Clock::Duration& told, const auto& say) {
    if (since.count() == 0) {
      told = Clock::Duration(0);
      return;
    }
    const Clock::Duration so_far = Clock::Steady().Now() - since;
    if (so_far < std::max<Clock::Duration>(kWaitTold, 2 * told)) return;
    told = so_far;
    say(so_far);
  };
  tell(worker_->starved_since(), starved_told_,
       [this](Clock::Duration so_far) { observer_.OnStarved(so_far); });
  tell(worker_->stalled_since(), stalled_told_,
       [this](Clock::Duration so_far) { observer_.OnStalled(so_far); });
}

SessionStatistics SourceSession::Impl::statistics() const {
  SessionStatistics statistics;
  MutexLock lock(statistics_mutex_);
  if (!statistics_ready_) return statistics;
  for (size_t i = 0; i < devices_.size(); ++i) {
    const SourceWorker::DeviceCounters& counters = worker_->device_counters(i);
    DeviceStatistics device;
    device.name = devices_[i]->name();
    device.bytes = counters.bytes.load(std::memory_order_relaxed);
    device.packets = counters.packets.load(std::memory_order_relaxed);
    device.read_bytes = counters.read_bytes.load(std::memory_order_relaxed);
    device.bytes_expected = stop_copy_bytes_[i];
    statistics.devices.push_back(std::move(device));
  }
  for (uint32_t i = 0; i < options_.lanes; ++i) {
    const SourceWorker::LaneCounters& counters = worker_->lane_counters(i);
    LaneStatistics lane;
    lane.transport = std::string(TransportName(counters.transport.load(std::memory_order_relaxed)));
    lane.bytes = counters.bytes.load(std::memory_order_relaxed);
    lane.packets = counters.packets.load(std::memory_order_relaxed);
    lane.queue_depth = counters.queue_depth.load(std::memory_order_relaxed);
    statistics.lanes.push_back(std::move(lane));
  }
  statistics.starved_time = worker_->starved_time();
  statistics.stalled_time = worker_->stalled_time();
  return statistics;
}

void SourceSession::Impl::PublishProgress() {
  uint64_t bytes = 0;
  for (size_t i = 0; i < devices_.size(); ++i) {
    bytes += worker_->device_counters(i).bytes.load(std::memory_order_relaxed);
  }
  progress_bytes_.store(bytes, std::memory_order_relaxed);
}

// First the watch was waited for, then the worker. A watch that was stopped to go on is no part of
// the session's end.
Clock::Duration SourceSession::Impl::BlockedTime(size_t device) const {
  Clock::Duration time{0};
  if (committed_ || !left_running_) return time;
  const bool in_pre_copy = watches_[device] != nullptr && !switchover_.has_value();
  if (in_pre_copy) time += watches_[device]->blocked_call().waited();
  return time + worker_->blocked_call(device).waited();
}

void SourceSession::Impl::FillReport(SessionReport& report) const {
  report.peer = options_.to;
  report.trust = options_.trust.kind();
  report.sealing = sealing_;
  report.crc = crc_;
  report.devices = device_reports_;
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceReport& device = report.devices[i];
    device.name = devices_[i]->name();
    device.kind = std::string(devices_[i]->kind());
    device.blocked_time = BlockedTime(i);
    if (worker_ == nullptr) continue;
    device.bytes = worker_->device_counters(i).bytes.load(std::memory_order_relaxed);
    device.packets = worker_->device_counters(i).packets.load(std::memory_order_relaxed);
    report.bytes += device.bytes;
    report.packets += device.packets;
  }
  if (worker_ != nullptr) {
    for (uint32_t i = 0; i < options_.lanes; ++i) {
      const SourceWorker::LaneCounters& lane = worker_->lane_counters(i);
      const LaneLife& life = lane_lives_[i];
      // One that never came up again was down until now.
      const Clock::Duration down = life.down_since.count() == 0
                                       ? Clock::Duration(0)
                                       : Clock::Steady().Now() - life.down_since;
      report.lanes.push_back(
          {std::string(TransportName(lane.transport.load(std::memory_order_relaxed))),
           lane.bytes.load(std::memory_order_relaxed), lane.packets.load(std::memory_order_relaxed),
           life.remade, lane.sent_again.load(std::memory_order_relaxed), 0, life.down_time + down,
           std::max(life.down_longest, down)});
    }
  }
  if (report.outcome == SessionOutcome::kDone) {
    report.downtime = done_at_ - stopped_at_;
    // Whatever it says: they ended before that.
    report.lane_finish_lag = std::min(lane_finish_lag_, loaded_at_ - stop_copy_at_);
    report.stream_time = loaded_at_ - (precopy_at_.count() > 0 ? precopy_at_ : stop_copy_at_);
  }
  report.precopy_time = precopy_time_;
  report.switchover = switchover_;
  if (report.outcome == SessionOutcome::kDone && switchover_.has_value()) {
    uint64_t precopy_bytes = 0;
    for (const DeviceReport& device : report.devices) precopy_bytes += device.precopy_bytes;
    const double rate = switchover_->bytes_per_second;
    const Clock::Duration moving =
        TimeForBytes(report.bytes - std::min(report.bytes, precopy_bytes),
                     rate > 0 ? std::optional<double>(rate) : std::nullopt);
    report.switchover->fixed_downtime = std::max(Clock::Duration(0), report.downtime - moving);
  }
  if (arena_ != nullptr) {
    report.arena_backing = arena_->backing_name();
    report.arena_bytes = arena_->size_bytes();
  }
}

SourceSession::SourceSession(SourceOptions options, std::vector<Device*> devices,
                             SessionObserver& observer)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(devices), observer)) {}
SourceSession::~SourceSession() {
  if (thread_.joinable()) thread_.join();
}
SessionReport SourceSession::Run() { return impl_->Run(); }
void SourceSession::Start(std::function<void(const SessionReport& report)> done) {
  thread_ = std::thread([this, done = std::move(done)] {
    NameThisThread("godwit-control");
    done(Run());
  });
}
void SourceSession::Cancel() { impl_->Cancel(); }
SessionStatistics SourceSession::statistics() const { return impl_->statistics(); }
SessionProgress SourceSession::progress() const { return impl_->progress(); }

}  // namespace godwit
