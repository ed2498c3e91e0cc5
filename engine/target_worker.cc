#include "engine/target_worker.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/packet.h"
#include "transport/tcp/tcp_lane.h"

namespace godwit {
namespace {

// How long a held receipt waits for one more packet at most: less than what a source takes for
// late. And for how long in all: packets that come so seldom leave nobody waiting for buffers.
constexpr std::chrono::milliseconds kHoldAfterPacketMax{80};
constexpr std::chrono::milliseconds kHoldReceiptsMax{400};

// Half of a lane's queue; of many lanes a quarter of all. Each receipt wakes up both control
// threads and the source's worker, and a worker has to make way for one of them. More than so many
// gain nothing that could be measured, and tell the source later what its lanes are worth.
constexpr uint32_t kPacketsAReceiptMax = 16;
uint32_t PacketsALane(uint32_t queue_packets) { return std::max<uint32_t>(1, queue_packets / 2); }
uint32_t PacketsAReceipt(uint32_t queue_packets, uint32_t lanes) {
  const uint32_t of_all = std::min(queue_packets * lanes / 4, kPacketsAReceiptMax);
  return std::max({uint32_t{1}, queue_packets / 2, of_all});
}

}  // namespace

absl::StatusOr<std::unique_ptr<TargetWorker>> TargetWorker::Make(std::vector<Loader*> loaders,
                                                                 const Limits& limits, Arena& arena,
                                                                 const Notifier& events) {
  GODWIT_ASSIGN_OR_RETURN(Notifier inbox, Notifier::Create());
  return std::unique_ptr<TargetWorker>(
      new TargetWorker(std::move(loaders), limits, arena, std::move(inbox), events));
}

TargetWorker::TargetWorker(std::vector<Loader*> loaders, const Limits& limits, Arena& arena,
                           Notifier inbox, const Notifier& events)
    : WorkerBase(arena, std::move(inbox), events),
      limits_(limits),
      loaders_(std::move(loaders)),
      lane_slots_(limits.lanes),
      packets_a_lane_(PacketsALane(limits.queue_packets)),
      packets_a_receipt_(PacketsAReceipt(limits.queue_packets, limits.lanes)),
      lane_counters_(limits.lanes) {
  for (LaneCounters& lane : lane_counters_) {
    lane.transport.store(limits.transport, std::memory_order_relaxed);
  }
}

absl::Status TargetWorker::SetUp() {
  for (size_t i = 0; i < lanes().size(); ++i) GODWIT_RETURN_IF_ERROR(FeedLane(i));
  return absl::OkStatus();
}

void TargetWorker::TearDown() {
  for (Buffer& buffer : to_post_) buffer = Buffer();  // after an error
  // Queue pairs that were made too late: their device goes next.
  taken_lanes_.clear();
  MutexLock lock(new_lanes_mutex_);
  new_lanes_.clear();
}

void TargetWorker::RemakeLane(NewLane made) {
  {
    MutexLock lock(new_lanes_mutex_);
    new_lanes_.push_back(std::move(made));
    lane_orders_wait_.store(true, std::memory_order_relaxed);
  }
  Wake();
}

void TargetWorker::SetReceiptPackets(uint32_t packets, bool hold) {
  const uint32_t lane_packets = PacketsALane(limits_.queue_packets);
  uint32_t most = PacketsAReceipt(limits_.queue_packets, limits_.lanes);
  if (hold) {
    // A source that is so near that each lane does without a receipt for more than half of its
    // queue. A quarter is left to go on with.
    const uint32_t lanes_part = packets / limits_.lanes;
    if (lanes_part > lane_packets) {
      packets_a_lane_.store(std::min(lanes_part, limits_.queue_packets * 3 / 4),
                            std::memory_order_relaxed);
      most = std::max(most, kPacketsAReceiptMax);
    }
    held_packets_.store(packets, std::memory_order_relaxed);
  }
  // (A source that can spare none has a long way to us, on which we are idle again and again.)
  packets_a_receipt_.store(std::min(most, packets >= 2 ? packets : lane_packets),
                           std::memory_order_relaxed);
}

void TargetWorker::DropLane(size_t lane, uint16_t generation, absl::Status why) {
  {
    MutexLock lock(new_lanes_mutex_);
    dropped_.push_back({static_cast<uint32_t>(lane), generation, /*up=*/false, std::move(why)});
    lane_orders_wait_.store(true, std::memory_order_relaxed);
  }
  Wake();
}

// A lane that is made again takes the old one's place, and its buffers, when those are free.
absl::Status TargetWorker::TakeNewLanes() {
  if (lane_orders_wait_.load(std::memory_order_relaxed)) {
    MutexLock lock(new_lanes_mutex_);
    lane_orders_wait_.store(false, std::memory_order_relaxed);
    for (NewLane& made : new_lanes_) taken_lanes_.push_back(std::move(made));
    new_lanes_.clear();
    for (const LaneChange& drop : dropped_) {
      if (lane_slots_[drop.lane].generation == drop.generation) LoseLane(drop.lane, drop.why);
    }
    dropped_.clear();
  }
  for (auto made = taken_lanes_.begin(); made != taken_lanes_.end();) {
    LaneSlot& slot = lane_slots_[made->lane];
    if (made->generation <= slot.generation) {  // its successor has come before it
      made = taken_lanes_.erase(made);
      continue;
    }
    if (slot.up) {
      LoseLane(made->lane, absl::UnavailableError("the source has made it again"));
    }
    if (!LaneGone(made->lane)) {
      ++made;
      continue;
    }
    slot = {0, 0, made->generation, true};
    lane_counters_[made->lane].receipt.store(LaneCount(slot.generation, 0),
                                             std::memory_order_relaxed);
    const bool tcp = made->ready == nullptr;
    lane_counters_[made->lane].transport.store(tcp ? TransportKind::kTcp : TransportKind::kVerbs,
                                               std::memory_order_relaxed);
    ReplaceLane(made->lane,
                tcp ? TcpLane::Make(std::move(made->socket), ring(), limits_.lane_limits,
                                    LaneRole::kReceiver, std::move(made->name))
                    : std::move(made->ready));
    GODWIT_RETURN_IF_ERROR(FeedLane(made->lane));
    // Only now: it lets the source send.
    lane_events_.Add({static_cast<uint32_t>(made->lane), slot.generation, /*up=*/true, {}});
    events().Notify();
    made = taken_lanes_.erase(made);
  }
  return absl::OkStatus();
}

void TargetWorker::LoseLane(size_t lane, absl::Status why) {
  LaneSlot& slot = lane_slots_[lane];
  if (!slot.up) return;
  slot.up = false;
  CloseLane(lane);
  lane_events_.Add({static_cast<uint32_t>(lane), slot.generation, /*up=*/false,
                    Annotate(why, absl::StrCat("lane ", lane, " (", lanes()[lane]->name(), ")"))});
  events().Notify();
}

// HOT PATH from here to Accept.
absl::StatusOr<bool> TargetWorker::Step() {
  bool more = false;
  bool received_over_tcp = false;
  for (const size_t lane : awake_lanes()) {
    GODWIT_ASSIGN_OR_RETURN(const size_t received, ReceiveFrom(lane));
    if (received > 0) {
      more |= received == received_.size();
      NoteWork();
      received_over_tcp |= !HasWatch(lane);
    }
    // A queue pair has a receive for each buffer that it was fed with, until something comes.
    if (received > 0 || !HasWatch(lane)) GODWIT_RETURN_IF_ERROR(FeedLane(lane));
  }
  GODWIT_RETURN_IF_ERROR(TakeNewLanes());
  CheckLanes();
  const uint64_t unannounced_packets = received_packets_ - announced_packets_;
  const uint32_t packets_a_receipt = packets_a_receipt_.load(std::memory_order_relaxed);
  if (receipt_due_ || unannounced_packets >= packets_a_receipt) NotifyOfReceipts();
  return more || LooksAgain(received_over_tcp);
}

// They are queue pairs, all with an fd. What has failed is told of in the next round.
absl::StatusOr<bool> TargetWorker::LookAtArmed(LaneSet lanes) {
  bool found = false;
  for (const size_t lane : lanes) {
    GODWIT_ASSIGN_OR_RETURN(const size_t received, ReceiveFrom(lane));
    if (received > 0) {
      NoteWork();
      GODWIT_RETURN_IF_ERROR(FeedLane(lane));
    }
    found |= received > 0 || !this->lanes()[lane]->status().ok();
  }
  return found;
}

absl::Status TargetWorker::FeedLane(size_t at) {
  Lane& lane = *lanes()[at];
  size_t wanted = lane.receives_wanted();
  while (wanted > 0) {
    const size_t count = std::min(wanted, to_post_.size());
    for (size_t i = 0; i < count; ++i) {
      to_post_[i] = arena().TryAcquire();
      if (!to_post_[i]) {
        // PlanTarget() made the arena large enough for every window and lane to be full.
        return absl::InternalError("the target's arena is empty, which its budget rules out");
      }
    }
    const size_t posted = lane.PostReceives(absl::MakeSpan(to_post_).first(count));
    for (size_t i = posted; i < count; ++i) to_post_[i] = Buffer();
    if (posted < count) break;
    wanted -= posted;
  }
  // Only now, with a receive posted for each, may the source hear of them.
  const LaneSlot& slot = lane_slots_[at];
  lane_counters_[at].receipt.store(LaneCount(slot.generation, slot.received_packets),
                                   std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::StatusOr<size_t> TargetWorker::ReceiveFrom(size_t lane) {
  const size_t count = lanes()[lane]->PollReceived(absl::MakeSpan(received_));
  if (count == 0) return 0;
  const Clock::Duration now = Clock::Steady().Now();
  received_at_ = now;
  for (size_t i = 0; i < count; ++i) {
    if (!lane_slots_[lane].up) {  // what was under way when it went down
      received_[i] = Buffer();
      continue;
    }
    const absl::Status accepted = Accept(lane, std::move(received_[i]), now);
    if (accepted.ok()) continue;
    // Behind damage nothing is believed; the source sends it again.
    for (Buffer& buffer : absl::MakeSpan(received_).first(count)) buffer = Buffer();
    if (!absl::IsDataLoss(accepted)) {
      return Annotate(accepted, absl::StrCat("lane ", lane, " (", lanes()[lane]->name(), ")"));
    }
    LoseLane(lane, accepted);
    break;
  }
  return count;
}

// The order of checks is docs/wire-format.md's. Nothing changes before the last has passed. Takes
// the buffer then, or leaves it.
absl::Status TargetWorker::Accept(size_t lane, Buffer&& buffer, Clock::Duration now) {
  LaneSlot& slot = lane_slots_[lane];
  const absl::Span<const std::byte> payload = buffer.payload_span();
  GODWIT_ASSIGN_OR_RETURN(const PacketHeader header, OpenAndDecode(lane, buffer));
  GODWIT_RETURN_IF_ERROR(CheckPacket(header, payload,
                                     {limits_.packet_bytes, loaders_.size(), limits_.crc},
                                     LaneCount(slot.generation, slot.received_packets)));
  const absl::Status inserted =
      loaders_[header.device]->window().Insert(Packet{std::move(buffer), header});
  // Sent again, or the other way round: what was sent first may come last.
  const bool again = absl::IsAlreadyExists(inserted);
  if (!inserted.ok() && !again) return Annotate(inserted, absl::StrCat("device ", header.device));
  if (received_packets_ == announced_packets_) unannounced_since_ = now;
  first_of_lane_ |= slot.received_packets == 0;
  ++slot.received_packets;
  ++received_packets_;
  if (++slot.unannounced_packets >= packets_a_lane_.load(std::memory_order_relaxed)) {
    receipt_due_ = true;
  }
  if (trace() != nullptr) TraceArrival(lane, header);
  LaneCounters& counters = lane_counters_[lane];
  counters.packets.fetch_add(1, std::memory_order_relaxed);
  counters.bytes.fetch_add(header.payload_bytes, std::memory_order_relaxed);
  counters.last_at_ns.store(now.count(), std::memory_order_relaxed);
  if (again) counters.duplicates.fetch_add(1, std::memory_order_relaxed);
  if (!again && loaders_[header.device]->Help()) receipt_due_ = true;
  return absl::OkStatus();
}

// Of a sealed frame nothing is believed before its seal has opened.
absl::StatusOr<PacketHeader> TargetWorker::OpenAndDecode(size_t lane, const Buffer& buffer) {
  const std::byte* const header = buffer.header(kFrameHeaderBytes);
  PacketSeal* const seal = SealOf(lane);
  if (seal == nullptr) return DecodePacketHeader(header, buffer.payload_bytes());
  GODWIT_RETURN_IF_ERROR(CheckHeaderWhole(header));
  GODWIT_RETURN_IF_ERROR(seal->Open(static_cast<uint16_t>(lane), buffer));
  return DecodeOpenedHeader(header, buffer.payload_bytes());
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

// All have been received from: what is the end of a stream may be on any.
void TargetWorker::CheckLanes() {
  for (const size_t i : awake_lanes()) {
    if (!lane_slots_[i].up) continue;
    const Lane& lane = *lanes()[i];
    if (!lane.status().ok()) {
      LoseLane(i, lane.status());
    } else if (lane.peer_closed() && !StreamsComplete()) {
      LoseLane(i, absl::UnavailableError(
                      absl::StrCat("the source closed it before the end of the stream, after ",
                                   lane_slots_[i].received_packets, " packets")));
    }
  }
}

bool TargetWorker::StreamsComplete() const {
  return std::all_of(loaders_.begin(), loaders_.end(),
                     [](const Loader* loader) { return loader->window().complete(); });
}

// A receipt for every few packets while they stream in, and at once when they stop, or when there
// are enough to tell of. With queue pairs the look before a sleep shows that; a TCP lane may have
// had no receive under way in the first look at which nothing comes, and is looked at twice.
bool TargetWorker::LooksAgain(bool received_over_tcp) {
  if (received_over_tcp) {
    looked_again_ = false;
    return true;
  }
  return received_packets_ > announced_packets_ && !HoldsReceipts() &&
         !std::exchange(looked_again_, true);
}

std::chrono::nanoseconds TargetWorker::OnIdle() {
  if (received_packets_ == announced_packets_) return std::chrono::nanoseconds(-1);
  if (HoldsReceipts()) {
    const Clock::Duration now = Clock::Steady().Now();
    const Clock::Duration left = std::min(kHoldAfterPacketMax - (now - received_at_),
                                          kHoldReceiptsMax - (now - unannounced_since_));
    if (left.count() > 0) return left;
  }
  NotifyOfReceipts();
  return std::chrono::nanoseconds(-1);
}

// Before it hears of a lane's first packet the source gives that lane few more.
bool TargetWorker::HoldsReceipts() const {
  const uint32_t held_packets = held_packets_.load(std::memory_order_relaxed);
  return !first_of_lane_ && received_packets_ - announced_packets_ < held_packets;
}

void TargetWorker::NotifyOfReceipts() {
  announced_packets_ = received_packets_;
  for (LaneSlot& slot : lane_slots_) slot.unannounced_packets = 0;
  receipt_due_ = false;
  first_of_lane_ = false;
  receipts_due_.fetch_add(1, std::memory_order_relaxed);
  events().Notify();
}

}  // namespace godwit
