#include "engine/session_base.h"

#include <absl/strings/str_cat.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/packet_seal.h"
#include "engine/rdma_ports.h"

namespace godwit {
namespace {

constexpr int kTickMs = 100;
constexpr int kLingerPollMs = 10;
constexpr std::chrono::milliseconds kPeersReasonWait{300};
constexpr std::chrono::milliseconds kAbortWait{1000};
// How long a driver may take with the call that it is in before people are told.
constexpr std::chrono::milliseconds kBlockedTold{50};
// Who cancels wants it over: a peer that is too busy to listen finds out by itself.
constexpr std::chrono::milliseconds kCancelWait{50};

}  // namespace

absl::string_view TransportName(TransportKind transport) {
  switch (transport) {
    case TransportKind::kAuto:
      return "auto";
    case TransportKind::kTcp:
      return "tcp";
    case TransportKind::kVerbs:
      return "verbs";
  }
  return "?";
}

absl::string_view SessionPhaseName(SessionPhase phase) {
  switch (phase) {
    case SessionPhase::kWaiting:
      return "waiting";
    case SessionPhase::kConnecting:
      return "connecting";
    case SessionPhase::kPreCopying:
      return "pre-copying";
    case SessionPhase::kStopping:
      return "stopping";
    case SessionPhase::kStreaming:
      return "streaming";
    case SessionPhase::kHandingOver:
      return "handing over";
    case SessionPhase::kFinished:
      return "finished";
  }
  return "?";
}

absl::Status WithRollBack(absl::Status why, const absl::Status& rolled_back) {
  if (rolled_back.ok()) return why;
  return absl::Status(why.code(), absl::StrCat(why.message(), "; then ", rolled_back.message()));
}

absl::Status CheckRdma(TransportKind transport, const std::string& devices) {
  if (transport != TransportKind::kVerbs && devices.empty()) return absl::OkStatus();
  if (transport == TransportKind::kTcp) {
    return absl::InvalidArgumentError(
        absl::StrCat("RDMA device ", devices,
                     " is named, but only TCP is asked for: leave out --rdma-device, or "
                     "--transport tcp"));
  }
  GODWIT_ASSIGN_OR_RETURN(const std::vector<VerbsDeviceOptions> wanted, ParseRdmaDevices(devices));
  const std::vector<RdmaDeviceInfo> there = ListRdmaDevices();
  for (const VerbsDeviceOptions& options : wanted) {
    GODWIT_RETURN_IF_ERROR(RankRdmaPaths(there, options).status());
  }
  return absl::OkStatus();
}

bool HasUsableRdmaPort(const std::string& devices) {
  return CheckRdma(TransportKind::kVerbs, devices).ok();
}

void CloseLane(std::unique_ptr<VerbsLane> lane) {
  lane->Close();
  Buffer buffers[8];
  while (!lane->quiescent()) {
    (void)lane->PollSent(absl::MakeSpan(buffers));
    (void)lane->PollReceived(absl::MakeSpan(buffers));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

std::string SoftwareName() { return "godwit " GODWIT_VERSION; }

std::string Printable(absl::string_view text) {
  constexpr size_t kPrintableMax = 512;
  std::string printable(text.substr(0, kPrintableMax));
  for (char& c : printable) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return printable;
}

absl::Status SessionBase::MakeNotifiers() {
  GODWIT_ASSIGN_OR_RETURN(events_, Notifier::Create());
  GODWIT_ASSIGN_OR_RETURN(cancel_, Notifier::Create());
  cancel_fd_.store(cancel_->fd());
  if (cancelled()) cancel_->Notify();  // by who found no fd yet
  return absl::OkStatus();
}

void SessionBase::Cancel() {
  cancelled_.store(true);
  // Async-signal-safe: an atomic and write(2).
  const int fd = cancel_fd_.load();
  const uint64_t one = 1;
  if (fd >= 0) (void)!::write(fd, &one, sizeof(one));
}

SessionProgress SessionBase::progress() const {
  SessionProgress progress;
  progress.phase = phase_.load(std::memory_order_relaxed);
  progress.downtime_estimate =
      std::chrono::nanoseconds(progress_downtime_.load(std::memory_order_relaxed));
  progress.bytes = progress_bytes_.load(std::memory_order_relaxed);
  progress.bytes_total = progress_bytes_total_.load(std::memory_order_relaxed);
  return progress;
}

void SessionBase::TracePhase(SessionPhase next) {
  const Clock::Duration now = Clock::Steady().Now();
  if (trace_ != nullptr && phase_began_.count() > 0) {
    TraceSpan span;
    span.name = SessionPhaseName(phase_);
    span.begin = phase_began_;
    span.end = now;
    trace_->OnSpan(span);
  }
  phase_began_ = next == SessionPhase::kFinished ? Clock::Duration(0) : now;
}

Clock::Duration SessionBase::TellSteps() {
  const std::vector<DeviceStep> steps = steps_.Take();
  for (const DeviceStep& step : steps) {
    observer_.OnDeviceStep(step);
    if (trace_ == nullptr) continue;
    TraceSpan span;
    span.track = TraceSpan::Track::kDevice;
    span.number = static_cast<uint32_t>(step.device);
    span.name = DeviceStateName(step.to);
    span.begin = step.begin;
    span.end = step.begin + step.duration;
    trace_->OnSpan(span);
  }
  return Slowest(steps);
}

void SessionBase::SetPhase(SessionPhase phase) {
  TracePhase(phase);
  phase_.store(phase, std::memory_order_relaxed);
  observer_.OnPhase(phase);
}

absl::Status SessionBase::WaitForEvents(std::vector<pollfd>* more) {
  const absl::Status waited = WaitForNews(more);
  GODWIT_RETURN_IF_ERROR(CheckCancelled());
  return waited;
}

absl::Status SessionBase::WaitForNews(std::vector<pollfd>* more) {
  std::vector<pollfd>& fds = poll_fds_;  // kept, so that waiting costs no allocation
  fds.assign({{events_->fd(), POLLIN, 0}, {cancel_->fd(), POLLIN, 0}});
  if (channel_ != nullptr) {
    const short writable = channel_->wants_write() ? POLLOUT : 0;
    fds.push_back({channel_->fd(), static_cast<short>(POLLIN | writable), 0});
  }
  const size_t ours = fds.size();
  if (more != nullptr) fds.insert(fds.end(), more->begin(), more->end());
  const bool probe_due = channel_ != nullptr && channel_->probe_due();
  ::poll(fds.data(), fds.size(), probe_due ? static_cast<int>(kProbeInterval.count()) : kTickMs);
  if (more != nullptr) {
    std::copy(fds.begin() + static_cast<ptrdiff_t>(ours), fds.end(), more->begin());
  }
  events_->Clear();
  if (fds[1].revents != 0) {
    cancel_->Clear();  // who goes on all the same must be able to sleep
    return absl::CancelledError("cancelled");
  }
  return channel_ != nullptr ? channel_->Tick() : absl::OkStatus();
}

absl::Status SessionBase::Pause(std::chrono::milliseconds time) {
  pollfd cancel = {cancel_->fd(), POLLIN, 0};
  if (::poll(&cancel, 1, static_cast<int>(time.count())) <= 0) return absl::OkStatus();
  cancel_->Clear();
  return absl::CancelledError("cancelled");
}

void SessionBase::KeepAlive() {
  if (channel_ != nullptr) (void)channel_->Tick();
}

absl::StatusOr<const control::ControlMessage*> SessionBase::Next() {
  GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage* const message, channel_->Next());
  if (message == nullptr || !message->has_abort()) return message;
  peer_gave_up_ = true;
  return absl::AbortedError(
      absl::StrCat("peer ", channel_->peer(), " gave up: ", Printable(message->abort().reason())));
}

absl::StatusOr<std::optional<control::ControlMessage>> SessionBase::Receive() {
  GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage* const next, Next());
  std::optional<control::ControlMessage> message;
  if (next != nullptr) message = *next;
  return message;
}

absl::Status SessionBase::OutOfTurn(const control::ControlMessage& message) {
  return absl::InvalidArgumentError(absl::StrCat(
      "the peer sent control message ", static_cast<int>(message.message_case()), " out of turn"));
}

absl::StatusOr<control::ControlMessage> SessionBase::Await(
    control::ControlMessage::MessageCase wanted, const char* name) {
  const Clock::Duration deadline = Clock::Steady().Now() + answer_timeout_;
  while (Clock::Steady().Now() < deadline) {
    GODWIT_RETURN_IF_ERROR(Annotate(CheckCancelled(), absl::StrCat("waiting for ", name)));
    GODWIT_ASSIGN_OR_RETURN(std::optional<control::ControlMessage> message, Receive());
    if (message.has_value()) {
      if (message->message_case() == wanted) return *std::move(message);
      return Annotate(OutOfTurn(*message), absl::StrCat("waiting for ", name));
    }
    GODWIT_RETURN_IF_ERROR(Annotate(WaitForEvents(), absl::StrCat("waiting for ", name)));
  }
  return absl::DeadlineExceededError(absl::StrCat("peer ", channel_->peer(), " is there, but ",
                                                  name, " did not come in ",
                                                  answer_timeout_.count(), " ms"));
}

absl::Status SessionBase::PreferPeersReason(absl::Status status) {
  // Only what a peer that has gone looks like: any other error is our own to tell, and at once.
  const bool peer_may_have_gone = absl::IsUnavailable(status) || absl::IsDataLoss(status);
  if (channel_ == nullptr || !peer_may_have_gone) return status;
  const auto deadline = std::chrono::steady_clock::now() + kPeersReasonWait;
  while (std::chrono::steady_clock::now() < deadline) {
    const auto message = Receive();
    if (absl::IsAborted(message.status())) return message.status();
    if (!message.ok()) return status;
    if (message->has_value()) continue;
    pollfd readable = {channel_->fd(), POLLIN, 0};
    ::poll(&readable, 1, 10);
  }
  return status;
}

void SessionBase::TellBlocked(size_t device, const BlockedCall& call) {
  told_blocked_.resize(devices_.size());
  if (told_blocked_[device] || call.so_far() < kBlockedTold) return;
  told_blocked_[device] = true;
  observer_.OnNote(absl::StrCat("waiting for device ", devices_[device]->name(),
                                " to end a call that can't be interrupted"));
}

void SessionBase::SendAbort(const absl::Status& why, bool last) {
  if (channel_ == nullptr) return;
  if (peer_gave_up_) {  // it waits until it sees that we have read its Abort
    channel_->EndSending();
    return;
  }
  control::ControlMessage message;
  message.mutable_abort()->set_reason(Printable(why.message()));
  (void)channel_->Send(message);  // a peer that is gone needs no reason
  if (last) channel_->EndSending();
}

void SessionBase::Linger() {
  if (channel_ == nullptr) return;
  // Closing with unread bytes would reset the connection and could take the reason with it: close
  // our half, and read until the peer has closed its own.
  const auto deadline = std::chrono::steady_clock::now() + (cancelled() ? kCancelWait : kAbortWait);
  while (channel_->wants_write() && channel_->Flush().ok() &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  channel_->EndSending();
  while (std::chrono::steady_clock::now() < deadline) {
    pollfd readable = {channel_->fd(), POLLIN, 0};
    if (::poll(&readable, 1, kLingerPollMs) <= 0) continue;
    char bytes[4096];
    const ssize_t got = ::recv(channel_->fd(), bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return;
  }
}

absl::Status SessionBase::ExportKeys() {
  if (!channel_->authenticated()) return absl::OkStatus();
  GODWIT_ASSIGN_OR_RETURN(lane_key_, channel_->ExportKey(kLaneKeyLabel, session_id_));
  GODWIT_ASSIGN_OR_RETURN(packet_key_, channel_->ExportKey(kPacketKeyLabel, session_id_));
  GODWIT_ASSIGN_OR_RETURN(handover_key_, channel_->ExportKey(kHandoverKeyLabel, session_id_));
  return absl::OkStatus();
}

std::string SessionBase::HandoverProof(HandoverWord word) const {
  return handover_key_.has_value() ? ProveHandover(*handover_key_, word) : "";
}

bool SessionBase::IsPeersWord(HandoverWord word, absl::string_view proof) const {
  return !handover_key_.has_value() || IsHandoverProof(proof, *handover_key_, word);
}

control::DeviceTable SessionBase::OurDeviceTable() {
  control::DeviceTable table;
  for (Device* device : devices_) {
    control::DeviceTable::Device& row = *table.add_devices();
    row.set_name(Printable(device->name()));
    row.set_kind(std::string(device->kind()));
    row.set_p2p(device->flags().p2p);
    row.set_pre_copy(device->flags().pre_copy);
    row.set_stop_copy_bytes(device->StopCopyBytes().value_or(0));
  }
  return table;
}

absl::Status SessionBase::CheckDeviceTable(const control::DeviceTable& theirs) const {
  if (static_cast<size_t>(theirs.devices_size()) != devices_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the peer has ", theirs.devices_size(), " devices for this session and this side ",
        devices_.size(), ": name as many --device on both sides, in the same order"));
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    const control::DeviceTable::Device& row = theirs.devices(static_cast<int>(i));
    if (row.kind() == devices_[i]->kind()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("device ", i, " is of kind '", devices_[i]->kind(), "' (", devices_[i]->name(),
                     ") on this side and of kind '", Printable(row.kind()), "' (",
                     Printable(row.name()), ") on the peer's: devices pair by position"));
  }
  return absl::OkStatus();
}

control::SealMode ToProto(SealMode mode) {
  switch (mode) {
    case SealMode::kAuto:
      return control::SEAL_AUTO;
    case SealMode::kOn:
      return control::SEAL_ON;
    case SealMode::kOff:
      return control::SEAL_OFF;
  }
  return control::SEAL_AUTO;
}

absl::StatusOr<Sealing> AgreeOnSealing(control::SealMode source, SealMode target, bool plain,
                                       TransportKind transport, bool off_loopback) {
  const bool on = source == control::SEAL_ON || target == SealMode::kOn;
  const bool off = source == control::SEAL_OFF || target == SealMode::kOff;
  if (on && plain) {
    return absl::InvalidArgumentError(
        "packets can't be sealed in a plain session: give certificates or --psk-file");
  }
  if (on && off) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ", target == SealMode::kOn ? "target" : "source",
                     " wants packets to be sealed (--seal on), and the ",
                     target == SealMode::kOn ? "source" : "target",
                     " does not (--seal off): give both the same"));
  }
  if (on) return Sealing::kAllLanes;
  if (off || plain || !off_loopback) return Sealing::kOff;
  return transport == TransportKind::kVerbs ? Sealing::kTcpLanes : Sealing::kAllLanes;
}

control::Sealing ToProto(Sealing sealing) {
  switch (sealing) {
    case Sealing::kOff:
      return control::SEALING_OFF;
    case Sealing::kTcpLanes:
      return control::SEALING_TCP_LANES;
    case Sealing::kAllLanes:
      return control::SEALING_ALL_LANES;
  }
  return control::SEALING_OFF;
}

absl::StatusOr<Sealing> FromProto(control::Sealing sealing) {
  switch (sealing) {
    case control::SEALING_OFF:
      return Sealing::kOff;
    case control::SEALING_TCP_LANES:
      return Sealing::kTcpLanes;
    case control::SEALING_ALL_LANES:
      return Sealing::kAllLanes;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "the target seals in a way that this side does not know, ", static_cast<int>(sealing)));
  }
}

control::LaneSetup::Verbs ToProto(const VerbsEndpoint& endpoint) {
  control::LaneSetup::Verbs proto;
  proto.set_queue_pair(endpoint.queue_pair_number);
  proto.set_start_psn(endpoint.start_psn);
  proto.set_gid(endpoint.gid.data(), endpoint.gid.size());
  proto.set_mtu(endpoint.mtu);
  proto.set_lid(endpoint.lid);
  return proto;
}

absl::StatusOr<VerbsEndpoint> FromProto(const control::LaneSetup::Verbs& proto) {
  VerbsEndpoint endpoint;
  if (proto.gid().size() != endpoint.gid.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the peer's GID has ", proto.gid().size(), " bytes, expected 16"));
  }
  std::memcpy(endpoint.gid.data(), proto.gid().data(), endpoint.gid.size());
  endpoint.queue_pair_number = proto.queue_pair();
  endpoint.start_psn = proto.start_psn();
  endpoint.mtu = proto.mtu();
  endpoint.lid = proto.lid();
  return endpoint;  // Connect() checks the rest
}

}  // namespace godwit
