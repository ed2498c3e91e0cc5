// The target's side of a session while frames flow: docs/wire-format.md, section 4, steps 7 and 8.

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/processors.h"
#include "base/status_macros.h"
#include "base/thread_name.h"
#include "engine/device_steps.h"
#include "engine/target_impl.h"
#include "engine/target_limits.h"

namespace godwit {
namespace {

constexpr size_t kArrivalsARound = 16;

}  // namespace

absl::Status TargetSession::Impl::Load() {
  while (!AllLoaded()) {
    GODWIT_ASSIGN_OR_RETURN(const auto message, Receive());
    if (message.has_value()) {
      if (TakeStopping(*message)) continue;
      GODWIT_ASSIGN_OR_RETURN(const bool taken, TakeRemakeLane(*message));
      if (!taken) return OutOfTurn(*message);
      // Each may have waited for a second for an address that nobody answers for, and there may be
      // as many as lanes.
      KeepAlive();
      GODWIT_RETURN_IF_ERROR(CheckCancelled());
      arrivals_ = true;
      GODWIT_RETURN_IF_ERROR(FollowLanes());
      GODWIT_RETURN_IF_ERROR(SendDueReceipts());
      continue;
    }
    GODWIT_RETURN_IF_ERROR(LoaderFailure());
    if (worker_->failed()) return worker_->status();
    GODWIT_RETURN_IF_ERROR(FollowLanes());
    GODWIT_RETURN_IF_ERROR(SendDueReceipts());
    PublishProgress();
    GODWIT_RETURN_IF_ERROR(CheckProgress());
    arriving_fds_.clear();
    rendezvous_->AddPollFds(arriving_fds_);
    GODWIT_RETURN_IF_ERROR(WaitForEvents(&arriving_fds_));
    // One that has said too little may have had its time.
    arrivals_ |= arriving_fds_.size() > 1 || arriving_fds_[0].revents != 0;
  }
  loaded_at_ = Clock::Steady().Now();
  worker_->SpinFor(Clock::Duration(0));
  PublishProgress();
  if (phase_ != SessionPhase::kStreaming) SetPhase(SessionPhase::kStreaming);  // before it was told
  GODWIT_RETURN_IF_ERROR(SendReceipts());
  GODWIT_RETURN_IF_ERROR(CheckCancelled());  // the last moment that needs no answer of the source's
  return SendLoaded();
}

// Takes lanes that the source has made again, and tells of those that came and went.
absl::Status TargetSession::Impl::FollowLanes() {
  // Not all of them: who connects faster than they are turned away must not keep the session.
  for (size_t heard = 0; arrivals_ && heard < kArrivalsARound; ++heard) {
    auto arrival = rendezvous_->Next();
    if (!arrival.ok()) {
      strangers_.Tell(absl::StrCat("turned away ", arrival.status().message()));
      continue;
    }
    arrivals_ = arrival->has_value();
    if (!arrivals_) break;
    Rendezvous::Arrival taken = *std::move(*arrival);
    const LaneHello& lane = taken.lane;
    // A greeting that was heard before makes no lane.
    if (taken.kind != PrefaceKind::kLane || lane.session_id != session_id_ ||
        lane.lane >= lane_count_ || lane.generation <= lane_generations_[lane.lane]) {
      strangers_.Tell(absl::StrCat("turned away ", taken.peer, ": no lane of this session"));
      continue;
    }
    lane_generations_[lane.lane] = lane.generation;
    worker_->RemakeLane({lane.lane, lane.generation, std::move(taken.socket), nullptr,
                         absl::StrCat("tcp ", taken.peer)});
  }
  if (rdma_ports_ != nullptr) {
    rdma_ports_->Follow([this](const std::string& line) { observer_.OnNote(line); },
                        [this](size_t lane, uint16_t generation, const absl::Status& why) {
                          worker_->DropLane(lane, generation, why);
                        });
  }
  for (const LaneChange& change : worker_->TakeLaneChanges()) {
    observer_.OnLane({change.lane, change.up, change.why});
    lanes_up_ += change.up ? 1 : -1;
    if (change.up) {
      GODWIT_RETURN_IF_ERROR(TellRemade(change));
      continue;
    }
    last_lane_error_ = change.why;
    GODWIT_RETURN_IF_ERROR(SendLaneDown(change.lane, change.generation, change.why));
  }
  return absl::OkStatus();
}

// It is sent before the last packets and may be read after them: they come on other connections.
bool TargetSession::Impl::TakeStopping(const control::ControlMessage& message) {
  if (!message.has_stopping() || stopping_at_.count() > 0) return false;
  stopping_at_ = Clock::Steady().Now();
  if (!AllLoaded()) SetPhase(SessionPhase::kStreaming);
  worker_->SpinFor(options_.spin);
  HoldReceipts(message.stopping().receipt_packets());
  return true;
}

// With few processors each receipt takes one from the threads that move packets, or from the source
// itself. Never for so many packets that the source would have to wait: it knows its buffers, each
// lane has a quarter of its queue left (the worker sees to that) and each window half.
void TargetSession::Impl::HoldReceipts(uint32_t packets) {
  packets = std::min(packets, budget_.window_packets / 2);
  const bool hold = packets >= 2 && ProcessorsToRunOn() < kProcessorsToOverlap;
  worker_->SetReceiptPackets(packets, hold);
  if (!hold) return;
  holds_receipts_ = true;
  for (const auto& loader : loaders_) loader->HoldReceipts();
}

// In pre-copy a device may be silent for as long as it likes.
absl::Status TargetSession::Impl::CheckProgress() {
  const uint64_t bytes = progress_bytes_.load(std::memory_order_relaxed);
  const Clock::Duration now = Clock::Steady().Now();
  if (bytes != progress_bytes_seen_ || stopping_at_.count() == 0) {
    progress_bytes_seen_ = bytes;
    progress_at_ = now;
  }
  progress_at_ = std::max(progress_at_, stopping_at_);
  if (now - progress_at_ <= options_.progress_timeout) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("nothing more was loaded for ", options_.progress_timeout.count(),
                   " ms, though the source answers: is its device, or ours, stuck?"));
}

bool TargetSession::Impl::AllLoaded() const {
  return std::all_of(loaders_.begin(), loaders_.end(),
                     [](const auto& loader) { return loader->phase() == Loader::Phase::kLoaded; });
}

absl::Status TargetSession::Impl::LoaderFailure() const {
  for (const auto& loader : loaders_) {
    if (loader->phase() == Loader::Phase::kFailed) return loader->status();
  }
  return absl::OkStatus();
}

// This thread wakes up for other reasons too, and those are none to tell of what may be held.
absl::Status TargetSession::Impl::SendDueReceipts() {
  const uint32_t due = worker_->receipts_due();
  bool send = !holds_receipts_ || std::exchange(receipts_due_, due) != due;
  const control::Receipts& sent = receipts_.receipts();
  for (int i = 0; !send && i < static_cast<int>(loaders_.size()); ++i) {
    send = sent.device_packets_size() == 0 ||
           loaders_[static_cast<size_t>(i)]->announced_packets() > sent.device_packets(i);
  }
  return send ? SendReceipts() : absl::OkStatus();
}

absl::Status TargetSession::Impl::SendReceipts() {
  control::Receipts& receipts = *receipts_.mutable_receipts();
  bool news = receipts.lane_packets_size() == 0;  // the first
  if (news) {
    receipts.mutable_lane_packets()->Resize(static_cast<int>(lane_count_), 0);
    receipts.mutable_device_packets()->Resize(static_cast<int>(windows_.size()), 0);
    receipts.mutable_device_bytes()->Resize(static_cast<int>(windows_.size()), 0);
  }
  for (uint32_t i = 0; i < lane_count_; ++i) {
    const uint64_t packets = worker_->lane_counters(i).receipt.load(std::memory_order_relaxed);
    uint64_t& sent = *receipts.mutable_lane_packets()->Mutable(static_cast<int>(i));
    news |= std::exchange(sent, packets) != packets;
  }
  for (size_t i = 0; i < windows_.size(); ++i) {
    const uint32_t packets = windows_[i]->loaded_packets();
    loaders_[i]->AnnouncedLoaded(packets);
    uint32_t& sent = *receipts.mutable_device_packets()->Mutable(static_cast<int>(i));
    news |= std::exchange(sent, packets) != packets;
    receipts.set_device_bytes(static_cast<int>(i), loaders_[i]->loaded_bytes());
  }
  return news ? channel_->Send(receipts_) : absl::OkStatus();
}

Clock::Duration TargetSession::Impl::LaneFinishLag() const {
  const Clock::Duration since = stopping_at_.count() > 0 ? stopping_at_ : ready_at_;
  Clock::Duration first = Clock::Duration::max();
  Clock::Duration last{0};
  for (uint32_t i = 0; i < lane_count_; ++i) {
    const Clock::Duration at(worker_->lane_counters(i).last_at_ns.load(std::memory_order_relaxed));
    if (at.count() == 0 || at < since) continue;
    first = std::min(first, at);
    last = std::max(last, at);
  }
  return last - std::min(first, last);
}

absl::Status TargetSession::Impl::SendLoaded() {
  promised_ = true;
  control::ControlMessage message;
  lane_finish_lag_ = LaneFinishLag();
  message.mutable_loaded()->set_lane_finish_lag_ns(static_cast<uint64_t>(lane_finish_lag_.count()));
  for (size_t i = 0; i < devices_.size(); ++i) {
    control::Loaded::Device& row = *message.mutable_loaded()->add_devices();
    row.set_bytes(loaders_[i]->loaded_bytes());
    row.set_crc32c(loaders_[i]->stream_crc());
    row.set_content_verified(devices_[i]->content_verified());
    row.set_out_of_order_packets(windows_[i]->out_of_order_packets());
  }
  return channel_->Send(message);
}

absl::Status TargetSession::Impl::MoveAll() {
  GODWIT_RETURN_IF_ERROR(CheckMoveTogether(devices_));
  GODWIT_RETURN_IF_ERROR(CheckTargetLimits(options_));
  GODWIT_RETURN_IF_ERROR(CheckRdma(options_.transport, options_.rdma_device));
  GODWIT_RETURN_IF_ERROR(MakeNotifiers());
  GODWIT_RETURN_IF_ERROR(Listen());
  GODWIT_RETURN_IF_ERROR(WaitForPeer());
  GODWIT_RETURN_IF_ERROR(ExchangeDeviceTables());
  GODWIT_RETURN_IF_ERROR(Resume());
  GODWIT_RETURN_IF_ERROR(MakeLanes());
  GODWIT_RETURN_IF_ERROR(Load());
  return HandOver();
}

SessionReport TargetSession::Impl::Run() {
  SessionReport report;
  connected_at_ = Clock::Steady().Now();
  absl::Status status = MoveAll();
  if (owner_) {
    // They run, and the VM is ours, whether or not the source hears of it and whatever else failed.
    report.outcome = SessionOutcome::kDone;
  } else {
    // With no lane left it may be the source that saw no way on: say why.
    if (!loaders_.empty() && lanes_up_ == 0) {
      status = absl::Status(status.code(),
                            absl::StrCat(status.message(), "; before, the last lane went down: ",
                                         last_lane_error_.message()));
    }
    status = EndWithoutDevices(std::move(status));
    report.outcome = in_doubt_ ? SessionOutcome::kInDoubt : SessionOutcome::kRolledBack;
  }
  if (channel_ != nullptr) Linger();
  ping_.reset();
  strangers_.TellCount();
  callers_.reset();
  rendezvous_.reset();  // who comes now is told so at once, and not by silence
  report.status = status;
  report.duration = Clock::Steady().Now() - connected_at_;
  for (auto& loader : loaders_) loader->Stop();
  if (worker_ != nullptr) worker_->Stop();
  FillReport(report);
  {
    SessionStatistics last = statistics();
    MutexLock lock(statistics_mutex_);
    last_statistics_ = std::move(last);
    statistics_ready_ = false;
  }
  loaders_.clear();
  windows_.clear();  // frees the packets that they still hold
  for (auto& lane : verbs_lanes_) CloseLane(std::move(lane));
  verbs_lanes_.clear();
  rdma_ports_.reset();
  channel_.reset();  // the peer need not wait for silence
  step_threads_.Stop();
  SetPhase(SessionPhase::kFinished);
  return report;
}

SessionStatistics TargetSession::Impl::statistics() const {
  SessionStatistics statistics;
  MutexLock lock(statistics_mutex_);
  if (!statistics_ready_) return last_statistics_;
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceStatistics device;
    device.name = devices_[i]->name();
    device.bytes = loaders_[i]->loaded_bytes();
    device.packets = windows_[i]->loaded_packets();
    device.bytes_expected = expected_bytes_[i];
    device.out_of_order_packets = windows_[i]->out_of_order_packets();
    device.reorder_depth_high_water = windows_[i]->depth_high_water();
    device.write_time = loaders_[i]->write_time();
    statistics.devices.push_back(std::move(device));
  }
  for (uint32_t i = 0; i < lane_count_; ++i) {
    const TargetWorker::LaneCounters& counters = worker_->lane_counters(i);
    LaneStatistics lane;
    lane.transport = std::string(TransportName(counters.transport.load(std::memory_order_relaxed)));
    lane.bytes = counters.bytes.load(std::memory_order_relaxed);
    lane.packets = counters.packets.load(std::memory_order_relaxed);
    statistics.lanes.push_back(std::move(lane));
  }
  return statistics;
}

void TargetSession::Impl::PublishProgress() {
  uint64_t bytes = 0;
  for (const auto& loader : loaders_) bytes += loader->loaded_bytes();
  // What comes before the source says that its VM stands still is pre-copy.
  if (bytes > 0 && stopping_at_.count() == 0 && phase_ == SessionPhase::kConnecting) {
    SetPhase(SessionPhase::kPreCopying);
  }
  progress_bytes_.store(bytes, std::memory_order_relaxed);
}

void TargetSession::Impl::FillReport(SessionReport& report) const {
  if (channel_ != nullptr) report.peer = channel_->peer();
  report.trust = options_.trust.kind();
  report.sealing = sealing_;
  report.crc = crc_;
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceReport device;
    device.name = devices_[i]->name();
    device.kind = std::string(devices_[i]->kind());
    if (i < loaders_.size()) {
      device.blocked_time = loaders_[i]->blocked_call().waited();
      device.bytes = loaders_[i]->loaded_bytes();
      device.packets = windows_[i]->loaded_packets();
      device.out_of_order_packets = windows_[i]->out_of_order_packets();
      if (loaders_[i]->phase() == Loader::Phase::kLoaded) {
        // Checked against the source's digest in the config packet.
        device.sent_crc32c = device.loaded_crc32c = loaders_[i]->stream_crc();
        device.content_verified = devices_[i]->content_verified();
      }
    }
    report.bytes += device.bytes;
    report.packets += device.packets;
    report.devices.push_back(std::move(device));
  }
  for (uint32_t i = 0; worker_ != nullptr && i < lane_count_; ++i) {
    const TargetWorker::LaneCounters& lane = worker_->lane_counters(i);
    report.lanes.push_back(
        {std::string(TransportName(lane.transport.load(std::memory_order_relaxed))),
         lane.bytes.load(std::memory_order_relaxed), lane.packets.load(std::memory_order_relaxed),
         0, 0, lane.duplicates.load(std::memory_order_relaxed)});
  }
  if (report.outcome == SessionOutcome::kDone) {
    report.downtime = done_at_ - (stopping_at_.count() > 0 ? stopping_at_ : ready_at_);
    report.stream_time = loaded_at_ - ready_at_;
    report.lane_finish_lag = lane_finish_lag_;
  }
  if (arena_ != nullptr) {
    report.arena_backing = arena_->backing_name();
    report.arena_bytes = arena_->size_bytes();
  }
}

TargetSession::TargetSession(TargetOptions options, std::vector<Device*> devices,
                             SessionObserver& observer)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(devices), observer)) {}
TargetSession::~TargetSession() {
  if (thread_.joinable()) thread_.join();
}
SessionReport TargetSession::Run() { return impl_->Run(); }
void TargetSession::Start(std::function<void(const SessionReport& report)> done) {
  thread_ = std::thread([this, done = std::move(done)] {
    NameThisThread("godwit-control");
    done(Run());
  });
}
void TargetSession::Cancel() { impl_->Cancel(); }
SessionStatistics TargetSession::statistics() const { return impl_->statistics(); }
SessionProgress TargetSession::progress() const { return impl_->progress(); }

}  // namespace godwit
