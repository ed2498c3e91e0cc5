#include "engine/ping_worker.h"

#include <absl/strings/str_cat.h>

#include <cstring>

#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {

absl::StatusOr<std::unique_ptr<PingWorker>> PingWorker::Make(LaneRole role,
                                                             const LaneLimits& limits,
                                                             size_t packet_bytes, size_t lanes,
                                                             Arena& arena, const Notifier& events) {
  GODWIT_ASSIGN_OR_RETURN(Notifier inbox, Notifier::Create());
  return std::unique_ptr<PingWorker>(
      new PingWorker(role, limits, packet_bytes, lanes, arena, std::move(inbox), events));
}

void PingWorker::TakeReceipt(size_t lane, uint64_t packets) {
  counters_[lane].receipts.store(packets);
  Wake();
}

absl::Status PingWorker::SetUp() {
  if (role_ == LaneRole::kReceiver) {
    for (size_t i = 0; i < lanes().size(); ++i) Feed(i);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> PingWorker::Step() {
  bool worked = false;
  for (size_t i = 0; i < lanes().size(); ++i) {
    worked |= role_ == LaneRole::kSender ? SendOn(i) : ReceiveOn(i);
    const absl::Status& status = lanes()[i]->status();
    if (!status.ok()) return Annotate(status, absl::StrCat("lane ", i));
  }
  if (ending_.load() && !ended_.exchange(true)) events().Notify();
  return worked;
}

bool PingWorker::SendOn(size_t at) {
  Lane& lane = *lanes()[at];
  bool worked = false;
  Buffer sent[8];
  while (lane.PollSent(absl::MakeSpan(sent)) > 0) {
    for (Buffer& buffer : sent) buffer = Buffer();
    worked = true;
  }
  while (!ending_.load() && taken_[at] - counters_[at].receipts.load() < limits_.queue_packets) {
    Buffer packet = arena().TryAcquire();
    if (!packet) break;
    // A new arena is all zeros, and nothing else is ever written to it.
    std::memset(packet.header(limits_.header_bytes), 0, limits_.header_bytes);
    packet.set_payload_bytes(packet_bytes_);
    // Before: its receipt may be quicker than this thread.
    counters_[at].packets.store(taken_[at] + 1);
    if (lane.Send(absl::MakeSpan(&packet, 1)) == 0) {
      counters_[at].packets.store(taken_[at]);
      break;
    }
    ++taken_[at];
    worked = true;
  }
  return worked;
}

bool PingWorker::ReceiveOn(size_t at) {
  Buffer received[8];
  const size_t count = lanes()[at]->PollReceived(absl::MakeSpan(received));
  if (count == 0) return false;
  for (Buffer& buffer : received) buffer = Buffer();
  Feed(at);
  taken_[at] += count;
  counters_[at].packets.store(taken_[at]);
  events().Notify();
  return true;
}

void PingWorker::Feed(size_t at) {
  Lane& lane = *lanes()[at];
  while (lane.status().ok() && lane.receives_wanted() > 0) {
    Buffer buffer = arena().TryAcquire();
    if (!buffer || lane.PostReceives(absl::MakeSpan(&buffer, 1)) == 0) return;
  }
}

}  // namespace godwit
