#include "engine/target_worker.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/packet.h"

namespace godwit {
absl::StatusOr<std::unique_ptr<TargetWorker>> TargetWorker::Make(
    std::vector<ReorderWindow*> windows, const Limits& limits, Arena& arena,
    const Notifier& events) {
  GODWIT_ASSIGN_OR_RETURN(Notifier inbox, Notifier::Create());
  return std::unique_ptr<TargetWorker>(
      new TargetWorker(std::move(windows), limits, arena, std::move(inbox), events));
}

TargetWorker::TargetWorker(std::vector<ReorderWindow*> windows, const Limits& limits, Arena& arena,
                           Notifier inbox, const Notifier& events)
    : WorkerBase(arena, std::move(inbox), events),
      limits_(limits),
      windows_(std::move(windows)),
      received_packets_(limits.lanes),
      packets_a_receipt_(std::max<uint32_t>(1, limits.queue_packets / 4)),
      lane_counters_(limits.lanes) {}

// HOT PATH from here to Accept.
absl::StatusOr<bool> TargetWorker::Step() {
  bool worked = false;
  for (size_t lane = 0; lane < lanes().size(); ++lane) {
    GODWIT_ASSIGN_OR_RETURN(const bool received, ReceiveFrom(lane));
    worked |= received;
  }
  GODWIT_RETURN_IF_ERROR(FeedLanes());
  GODWIT_RETURN_IF_ERROR(CheckLanes());
  NotifyOfReceipts(worked);
  return worked;
}

absl::Status TargetWorker::FeedLanes() {
  for (size_t i = 0; i < lanes().size(); ++i) {
    Lane& lane = *lanes()[i];
    while (lane.status().ok() && lane.receives_wanted() > 0) {
      Buffer buffer = arena().TryAcquire();
      if (!buffer) {
        // PlanTarget() made the arena large enough for every window and lane to be full.
        return absl::InternalError("the target's arena is empty, which its budget rules out");
      }
      if (lane.PostReceives(absl::MakeSpan(&buffer, 1)) == 0) break;
    }
    // Only now, with a receive posted for each, may the source hear of them.
    lane_counters_[i].packets.store(received_packets_[i], std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> TargetWorker::ReceiveFrom(size_t lane) {
  Buffer received[8];
  const size_t count = lanes()[lane]->PollReceived(absl::MakeSpan(received));
  for (size_t i = 0; i < count; ++i) {
    const absl::Status accepted = Accept(lane, std::move(received[i]));
    if (!accepted.ok()) {
      return Annotate(accepted, absl::StrCat("lane ", lane, " (", lanes()[lane]->name(), ")"));
    }
  }
  return count > 0;
}

// The order of checks is docs/wire-format.md's. Nothing changes before the last has passed.
absl::Status TargetWorker::Accept(size_t lane, Buffer buffer) {
  const absl::Span<const std::byte> payload = buffer.payload_span();
  GODWIT_ASSIGN_OR_RETURN(const PacketHeader header,
                          DecodePacketHeader(buffer.header(kFrameHeaderBytes), payload.size()));
  GODWIT_RETURN_IF_ERROR(CheckPacket(header, payload, {limits_.packet_bytes, windows_.size()},
                                     received_packets_[lane]));
  const absl::Status inserted = windows_[header.device]->Insert(Packet{std::move(buffer), header});
  if (!inserted.ok()) return Annotate(inserted, absl::StrCat("device ", header.device));
  ++received_packets_[lane];
  if (trace() != nullptr) TraceArrival(lane, header);
  lane_counters_[lane].bytes.fetch_add(header.payload_bytes, std::memory_order_relaxed);
  return absl::OkStatus();
}

void TargetWorker::TraceArrival(size_t lane, const PacketHeader& header) {
  TraceSpan span;
  span.track = TraceSpan::Track::kLane;
  span.number = static_cast<uint32_t>(lane);
  span.name = "arrive";
  span.begin = span.end = Clock::Steady().Now();
  span.bytes = header.payload_bytes;
  span.device = header.device;
  span.index = header.index;
  trace()->OnSpan(span);
}

absl::Status TargetWorker::CheckLanes() {
  for (size_t i = 0; i < lanes().size(); ++i) {
    const Lane& lane = *lanes()[i];
    if (!lane.status().ok()) return Annotate(lane.status(), absl::StrCat("lane ", i));
    if (lane.peer_closed() && !StreamsComplete()) {
      return absl::UnavailableError(
          absl::StrCat("lane ", i, " (", lane.name(),
                       "): the source closed it before the end of the stream, after ",
                       received_packets_[i], " packets"));
    }
  }
  return absl::OkStatus();
}

bool TargetWorker::StreamsComplete() const {
  return std::all_of(windows_.begin(), windows_.end(),
                     [](const ReorderWindow* window) { return window->complete(); });
}

// A receipt for every few packets while they stream in, and at once when they stop.
void TargetWorker::NotifyOfReceipts(bool worked) {
  uint64_t received = 0;
  for (const uint64_t packets : received_packets_) received += packets;
  const uint64_t unannounced = received - announced_packets_;
  if (unannounced == 0 || (worked && unannounced < packets_a_receipt_)) return;
  announced_packets_ = received;
  events().Notify();
}

}  // namespace godwit
