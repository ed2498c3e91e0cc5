// Saving devices to a capture.

#include <absl/strings/str_cat.h>

#include <utility>

#include "base/errno_status.h"
#include "base/io_ring.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "engine/buffer_budget.h"
#include "engine/capture_writer.h"
#include "engine/device_steps.h"
#include "engine/session_base.h"
#include "engine/state_reader.h"
#include "godwit/capture.h"

namespace godwit {
namespace {

// As a session's default.
constexpr size_t kArenaBytes = 128 * kMiB;

constexpr std::chrono::milliseconds kTick{100};  // how late a Cancel() may be seen
constexpr std::chrono::milliseconds kTearDownPoll{10};

}  // namespace

class SaveSession::Impl final : public SessionBase {
 public:
  Impl(SaveOptions options, std::vector<Device*> devices, SessionObserver& observer)
      : SessionBase(std::move(devices), observer), options_(std::move(options)) {}
  ~Impl() { StopReading(); }

  SessionReport Run();

 private:
  absl::Status Check() const;
  absl::Status SaveAll();
  absl::Status OpenFile();
  absl::Status StopDevices();
  absl::Status ReadStreams();
  // What can be done of one device's stream without waiting; whether that was anything.
  absl::StatusOr<bool> Advance(size_t device);
  absl::Status WritePacket(Packet packet);
  void StopReading();
  absl::Status Finish();
  absl::Status RollBack();

  const SaveOptions options_;
  SourceBudget budget_;
  std::unique_ptr<CaptureWriter> writer_;
  std::unique_ptr<IoRing> ring_;
  std::vector<UniqueFd> streams_;
  std::vector<std::string> configs_;
  std::vector<std::unique_ptr<StateReader>> readers_;
  std::vector<DeviceReport> device_reports_;
  size_t open_streams_ = 0;

  bool left_running_ = false;  // a device may have left RUNNING
  Clock::Duration stopped_at_{0};
  Clock::Duration stop_copy_at_{0};
  Clock::Duration saved_at_{0};
  Clock::Duration done_at_{0};
};

absl::Status SaveSession::Impl::Check() const {
  GODWIT_RETURN_IF_ERROR(CheckMoveTogether(devices_));
  if (options_.packet_bytes >= 1 && options_.packet_bytes <= kPacketBytesMax) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("packets of ", options_.packet_bytes,
                                                 " bytes, allowed are 1 to ", kPacketBytesMax));
}

absl::Status SaveSession::Impl::OpenFile() {
  GODWIT_ASSIGN_OR_RETURN(writer_, CaptureWriter::Create(options_.out, options_.replace));
  CaptureHeader header;
  header.packet_bytes = static_cast<uint32_t>(options_.packet_bytes);
  uint64_t bytes_total = 0;
  for (Device* device : devices_) {
    CaptureDevice& row = header.devices.emplace_back();
    row.kind = std::string(device->kind().substr(0, kCaptureKindBytesMax));
    row.name = Printable(device->name());
    if (row.name.empty()) row.name.push_back('?');
    row.flags = device->flags();
    row.stop_copy_bytes = device->StopCopyBytes().value_or(0);
    bytes_total += row.stop_copy_bytes;
  }
  progress_bytes_total_.store(bytes_total, std::memory_order_relaxed);
  return writer_->WriteHeader(header);
}

absl::Status SaveSession::Impl::StopDevices() {
  SetPhase(SessionPhase::kStopping);
  const auto nothing = [] {};
  stopped_at_ = Clock::Steady().Now();
  left_running_ = true;
  if (devices_.size() > 1) {
    GODWIT_RETURN_IF_ERROR(
        SetStates(step_threads_, devices_, DeviceState::kRunningP2p, nullptr, nothing));
  }
  GODWIT_RETURN_IF_ERROR(
      SetStates(step_threads_, devices_, DeviceState::kStopCopy, &streams_, nothing));
  stop_copy_at_ = Clock::Steady().Now();
  return SaveConfigs(step_threads_, devices_, configs_, nothing);
}

absl::Status SaveSession::Impl::ReadStreams() {
  SetPhase(SessionPhase::kStreaming);
  for (size_t i = 0; i < devices_.size(); ++i) {
    readers_.push_back(std::make_unique<StateReader>(static_cast<uint16_t>(i), devices_[i]->name(),
                                                     std::move(streams_[i]), options_.packet_bytes,
                                                     budget_.chain_packets, *ring_, *arena_));
  }
  open_streams_ = devices_.size();
  while (open_streams_ > 0) {
    if (cancelled()) return absl::CancelledError("cancelled");
    bool worked = false;
    for (size_t i = 0; i < devices_.size(); ++i) {
      GODWIT_ASSIGN_OR_RETURN(const bool advanced, Advance(i));
      worked |= advanced;
    }
    if (open_streams_ > 0) ring_->Wait(worked ? std::chrono::nanoseconds::zero() : kTick);
  }
  saved_at_ = Clock::Steady().Now();
  return absl::OkStatus();
}

absl::StatusOr<bool> SaveSession::Impl::Advance(size_t device) {
  StateReader& reader = *readers_[device];
  DeviceReport& report = device_reports_[device];
  bool worked = reader.Pump();
  while (reader.has_packet()) {
    GODWIT_RETURN_IF_ERROR(WritePacket(reader.PopPacket()));
    worked = true;
  }
  GODWIT_RETURN_IF_ERROR(reader.status());
  const bool open = report.packets == 0;
  if (!open || !reader.finished()) return worked;
  Buffer buffer = arena_->TryAcquire();
  if (!buffer) return worked;  // the other devices' chains have them all for now
  GODWIT_RETURN_IF_ERROR(WritePacket(reader.MakeConfigPacket(configs_[device], std::move(buffer))));
  report.bytes = reader.stream_bytes();
  report.packets = reader.packets();
  report.sent_crc32c = reader.stream_crc();
  --open_streams_;
  return true;
}

absl::Status SaveSession::Impl::WritePacket(Packet packet) {
  packet.header.lane_sequence = writer_->records();
  EncodePacketHeader(packet.header, packet.buffer.header(kFrameHeaderBytes));
  GODWIT_RETURN_IF_ERROR(writer_->WriteRecord(packet.buffer));
  if (!packet.header.is_config()) {
    progress_bytes_.fetch_add(packet.header.payload_bytes, std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

// Not bounded where a driver's read can't be cancelled: its buffer can't be freed before.
void SaveSession::Impl::StopReading() {
  const Clock::Duration began = Clock::Steady().Now();
  for (size_t i = 0; i < readers_.size(); ++i) {
    StateReader& reader = *readers_[i];
    if (reader.idle()) continue;
    while (!reader.idle()) {
      reader.Cancel();  // a chain goes read by read
      ring_->Wait(kTearDownPoll);
    }
    device_reports_[i].blocked_time = Clock::Steady().Now() - began;
  }
  readers_.clear();  // closes the data_fds
  streams_.clear();
}

absl::Status SaveSession::Impl::Finish() {
  SetPhase(SessionPhase::kHandingOver);
  StopReading();
  const auto nothing = [] {};
  GODWIT_RETURN_IF_ERROR(CheckStillStopped(step_threads_, devices_, nothing));
  if (options_.leave_stopped) {
    GODWIT_RETURN_IF_ERROR(
        SetStates(step_threads_, devices_, DeviceState::kStop, nullptr, nothing));
    GODWIT_RETURN_IF_ERROR(writer_->Commit());
    done_at_ = Clock::Steady().Now();
    return absl::OkStatus();
  }
  // They have what they need: no VM waits for the disk.
  const absl::Status running = RunAll(step_threads_, devices_, nothing);
  done_at_ = Clock::Steady().Now();
  const absl::Status committed = writer_->Commit();
  if (running.ok()) {
    left_running_ = false;
    return committed;
  }
  if (!committed.ok()) return running;
  // The file may be all that is left of their state.
  return Annotate(running, absl::StrCat(options_.out,
                                        " is whole, but the devices did not all run on after it"));
}

absl::Status SaveSession::Impl::SaveAll() {
  GODWIT_RETURN_IF_ERROR(Check());
  GODWIT_RETURN_IF_ERROR(MakeNotifiers());
  SetPhase(SessionPhase::kConnecting);
  budget_ = PlanSource(kArenaBytes, static_cast<uint32_t>(devices_.size()), /*lanes=*/1,
                       options_.packet_bytes, kQueuePacketsMin);
  GODWIT_ASSIGN_OR_RETURN(arena_,
                          Arena::Create(budget_.buffers, PayloadBytesMax(options_.packet_bytes)));
  GODWIT_ASSIGN_OR_RETURN(ring_, IoRing::Create(kDevicesMax * kChainPacketsMax));
  (void)ring_->RegisterArena(*arena_);  // plain reads do, too
  GODWIT_RETURN_IF_ERROR(OpenFile());
  GODWIT_RETURN_IF_ERROR(StopDevices());
  GODWIT_RETURN_IF_ERROR(ReadStreams());
  return Finish();
}

absl::Status SaveSession::Impl::RollBack() {
  StopReading();
  writer_.reset();  // removes what is not whole
  if (!left_running_) return absl::OkStatus();
  return PutBackToRunning(step_threads_, devices_, observer_, device_reports_, [] {});
}

SessionReport SaveSession::Impl::Run() {
  const Clock::Duration start = Clock::Steady().Now();
  device_reports_.resize(devices_.size());
  SessionReport report;
  report.status = SaveAll();
  if (report.status.ok()) {
    report.outcome = SessionOutcome::kDone;
    report.downtime = done_at_ - stopped_at_;
    report.stream_time = saved_at_ - stop_copy_at_;
  } else {
    const absl::Status rolled_back = RollBack();
    report.status = WithRollBack(std::move(report.status), rolled_back);
  }
  report.duration = Clock::Steady().Now() - start;
  report.peer = options_.out;
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceReport& device = device_reports_[i];
    device.name = devices_[i]->name();
    device.kind = std::string(devices_[i]->kind());
    report.bytes += device.bytes;
    report.packets += device.packets;
  }
  report.devices = device_reports_;
  if (arena_ != nullptr) {
    report.arena_backing = arena_->backing_name();
    report.arena_bytes = arena_->size_bytes();
  }
  step_threads_.Stop();
  SetPhase(SessionPhase::kFinished);
  return report;
}

SaveSession::SaveSession(SaveOptions options, std::vector<Device*> devices,
                         SessionObserver& observer)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(devices), observer)) {}
SaveSession::~SaveSession() = default;
SessionReport SaveSession::Run() { return impl_->Run(); }
void SaveSession::Cancel() { impl_->Cancel(); }
SessionProgress SaveSession::progress() const { return impl_->progress(); }

}  // namespace godwit
