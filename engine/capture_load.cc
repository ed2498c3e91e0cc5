// Loading devices from a capture.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/buffer_budget.h"
#include "engine/capture_reader.h"
#include "engine/device_steps.h"
#include "engine/loader.h"
#include "engine/session_base.h"
#include "godwit/capture.h"

namespace godwit {

class LoadSession::Impl final : public SessionBase {
 public:
  Impl(LoadOptions options, std::vector<Device*> devices, SessionObserver& observer)
      : SessionBase(std::move(devices), observer), options_(std::move(options)) {}

  SessionReport Run();

 private:
  absl::Status LoadAll();
  absl::Status OpenFile();
  absl::Status CheckDevices() const;
  absl::Status StartLoaders();
  absl::Status ReadPackets();
  absl::StatusOr<Buffer> AcquireBuffer();
  // Checks a frame as a session does, and hands it to its device's loader when that has room.
  absl::Status Accept(Buffer buffer);
  absl::Status AwaitLoaded();
  // Sleeps until a loader has news. Its failure is an error here.
  absl::Status WaitForLoaders();
  absl::Status LoaderFailure() const;
  absl::Status RollBack();
  void FillReport(SessionReport& report) const;

  const LoadOptions options_;
  std::unique_ptr<CaptureReader> reader_;
  TargetBudget budget_;
  std::vector<UniqueFd> streams_;
  std::vector<std::unique_ptr<ReorderWindow>> windows_;
  std::vector<std::unique_ptr<Loader>> loaders_;
  std::vector<uint32_t> next_index_;     // a device
  std::vector<uint8_t> config_is_read_;  // a device

  bool resuming_ = false;  // a device may have left RUNNING
  Clock::Duration ready_at_{0};
  Clock::Duration loaded_at_{0};
  Clock::Duration done_at_{0};
};

absl::Status LoadSession::Impl::OpenFile() {
  GODWIT_ASSIGN_OR_RETURN(reader_, CaptureReader::Open(options_.in));
  GODWIT_RETURN_IF_ERROR(CheckDevices());
  GODWIT_RETURN_IF_ERROR(reader_->CheckWhole());
  uint64_t bytes_total = 0;
  for (const CaptureDevice& row : reader_->header().devices) bytes_total += row.stop_copy_bytes;
  progress_bytes_total_.store(bytes_total, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status LoadSession::Impl::CheckDevices() const {
  const std::vector<CaptureDevice>& saved = reader_->header().devices;
  if (saved.size() != devices_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options_.in, " holds ", saved.size(), " devices and ", devices_.size(),
        " are to be loaded: name as many --device, in its order (godwit inspect lists them)"));
  }
  for (size_t i = 0; i < saved.size(); ++i) {
    if (saved[i].kind == devices_[i]->kind()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("device ", i, " is of kind '", devices_[i]->kind(), "' (", devices_[i]->name(),
                     ") here and of kind '", Printable(saved[i].kind), "' (",
                     Printable(saved[i].name), ") in ", options_.in, ": devices pair by position"));
  }
  return absl::OkStatus();
}

absl::Status LoadSession::Impl::StartLoaders() {
  const size_t packet_bytes = reader_->header().packet_bytes;
  budget_ = PlanTarget(options_.arena_bytes, static_cast<uint32_t>(devices_.size()), /*lanes=*/1,
                       packet_bytes, /*receives_are_posted_ahead=*/false);
  GODWIT_ASSIGN_OR_RETURN(arena_, Arena::Create(budget_.buffers, PayloadBytesMax(packet_bytes)));
  next_index_.resize(devices_.size());
  config_is_read_.resize(devices_.size());
  resuming_ = true;
  GODWIT_RETURN_IF_ERROR(
      SetStates(step_threads_, devices_, DeviceState::kResuming, &streams_, [] {}));
  for (size_t i = 0; i < devices_.size(); ++i) {
    windows_.push_back(std::make_unique<ReorderWindow>(budget_.window_packets));
    loaders_.push_back(std::make_unique<Loader>(
        *devices_[i], std::move(streams_[i]), *windows_[i], budget_.window_packets, events(),
        options_.stream_check ? options_.stream_check(i) : nullptr));
    loaders_.back()->Start();
  }
  ready_at_ = Clock::Steady().Now();
  return absl::OkStatus();
}

absl::Status LoadSession::Impl::ReadPackets() {
  SetPhase(SessionPhase::kStreaming);
  while (true) {
    if (cancelled()) return absl::CancelledError("cancelled");
    GODWIT_ASSIGN_OR_RETURN(const std::optional<size_t> frame_bytes, reader_->NextFrameBytes());
    if (!frame_bytes.has_value()) break;
    GODWIT_ASSIGN_OR_RETURN(Buffer buffer, AcquireBuffer());
    GODWIT_RETURN_IF_ERROR(reader_->ReadFrame(buffer.header(kFrameHeaderBytes)));
    buffer.set_payload_bytes(*frame_bytes - kFrameHeaderBytes);
    GODWIT_RETURN_IF_ERROR(Accept(std::move(buffer)));
    GODWIT_RETURN_IF_ERROR(LoaderFailure());
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (config_is_read_[i] != 0) continue;
    return absl::DataLossError(absl::StrCat(options_.in, ": the config packet of device ", i,
                                            " is missing: the file is damaged"));
  }
  return absl::OkStatus();
}

// Every window has its buffers and there are more, so one comes free.
absl::StatusOr<Buffer> LoadSession::Impl::AcquireBuffer() {
  while (true) {
    Buffer buffer = arena_->TryAcquire();
    if (buffer) return buffer;
    GODWIT_RETURN_IF_ERROR(WaitForLoaders());
  }
}

absl::Status LoadSession::Impl::Accept(Buffer buffer) {
  const absl::Span<const std::byte> payload = buffer.payload_span();
  const auto header = DecodePacketHeader(buffer.header(kFrameHeaderBytes), payload.size());
  if (!header.ok()) return Annotate(header.status(), reader_->Where());
  GODWIT_RETURN_IF_ERROR(
      Annotate(CheckPacket(*header, payload, {reader_->header().packet_bytes, devices_.size()},
                           reader_->record()),
               reader_->Where()));
  const size_t device = header->device;
  if (config_is_read_[device] != 0 || header->index != next_index_[device]) {
    return absl::DataLossError(absl::StrFormat(
        "%s: packet %u of device %u, due is %s", reader_->Where(), header->index, device,
        config_is_read_[device] != 0 ? "none any more" : absl::StrCat(next_index_[device])));
  }
  ++next_index_[device];
  config_is_read_[device] = header->is_config() ? 1 : 0;
  while (header->index - windows_[device]->loaded_packets() >= budget_.window_packets) {
    GODWIT_RETURN_IF_ERROR(WaitForLoaders());
  }
  return Annotate(windows_[device]->Insert(Packet{std::move(buffer), *header}), reader_->Where());
}

absl::Status LoadSession::Impl::AwaitLoaded() {
  const auto is_loaded = [](const auto& loader) {
    return loader->phase() == Loader::Phase::kLoaded;
  };
  while (!std::all_of(loaders_.begin(), loaders_.end(), is_loaded)) {
    GODWIT_RETURN_IF_ERROR(WaitForLoaders());
  }
  loaded_at_ = Clock::Steady().Now();
  return absl::OkStatus();
}

absl::Status LoadSession::Impl::WaitForLoaders() {
  GODWIT_RETURN_IF_ERROR(LoaderFailure());
  uint64_t bytes = 0;
  for (const auto& loader : loaders_) bytes += loader->loaded_bytes();
  progress_bytes_.store(bytes, std::memory_order_relaxed);
  return WaitForEvents();
}

absl::Status LoadSession::Impl::LoaderFailure() const {
  for (const auto& loader : loaders_) {
    if (loader->phase() == Loader::Phase::kFailed) return loader->status();
  }
  return absl::OkStatus();
}

absl::Status LoadSession::Impl::LoadAll() {
  GODWIT_RETURN_IF_ERROR(CheckMoveTogether(devices_));
  GODWIT_RETURN_IF_ERROR(MakeNotifiers());
  SetPhase(SessionPhase::kConnecting);
  GODWIT_RETURN_IF_ERROR(OpenFile());
  GODWIT_RETURN_IF_ERROR(StartLoaders());
  GODWIT_RETURN_IF_ERROR(ReadPackets());
  GODWIT_RETURN_IF_ERROR(AwaitLoaded());
  SetPhase(SessionPhase::kHandingOver);
  GODWIT_RETURN_IF_ERROR(RunAll(step_threads_, devices_, [] {}));
  done_at_ = Clock::Steady().Now();
  return absl::OkStatus();
}

absl::Status LoadSession::Impl::RollBack() {
  for (auto& loader : loaders_) loader->AskToStop();
  for (auto& loader : loaders_) loader->Stop();
  streams_.clear();
  if (!resuming_) return absl::OkStatus();
  return ResetAll(step_threads_, devices_, [] {});
}

SessionReport LoadSession::Impl::Run() {
  const Clock::Duration start = Clock::Steady().Now();
  SessionReport report;
  report.status = LoadAll();
  if (report.status.ok()) {
    report.outcome = SessionOutcome::kDone;
    report.downtime = done_at_ - ready_at_;
    report.stream_time = loaded_at_ - ready_at_;
  } else {
    const absl::Status rolled_back = RollBack();
    report.status = WithRollBack(std::move(report.status), rolled_back);
  }
  report.duration = Clock::Steady().Now() - start;
  for (auto& loader : loaders_) loader->Stop();
  FillReport(report);
  loaders_.clear();
  windows_.clear();  // frees the packets that they still hold
  step_threads_.Stop();
  SetPhase(SessionPhase::kFinished);
  return report;
}

void LoadSession::Impl::FillReport(SessionReport& report) const {
  report.peer = options_.in;
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceReport& device = report.devices.emplace_back();
    device.name = devices_[i]->name();
    device.kind = std::string(devices_[i]->kind());
    if (i >= loaders_.size()) continue;
    device.blocked_time = loaders_[i]->blocked_call().waited();
    device.bytes = loaders_[i]->loaded_bytes();
    device.packets = windows_[i]->loaded_packets();
    if (loaders_[i]->phase() == Loader::Phase::kLoaded) {
      // Checked against the digest in the config packet.
      device.sent_crc32c = device.loaded_crc32c = loaders_[i]->stream_crc();
      device.content_verified = devices_[i]->content_verified();
    }
    report.bytes += device.bytes;
    report.packets += device.packets;
  }
  if (arena_ != nullptr) {
    report.arena_backing = arena_->backing_name();
    report.arena_bytes = arena_->size_bytes();
  }
}

LoadSession::LoadSession(LoadOptions options, std::vector<Device*> devices,
                         SessionObserver& observer)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(devices), observer)) {}
LoadSession::~LoadSession() = default;
SessionReport LoadSession::Run() { return impl_->Run(); }
void LoadSession::Cancel() { impl_->Cancel(); }
SessionProgress LoadSession::progress() const { return impl_->progress(); }

}  // namespace godwit
