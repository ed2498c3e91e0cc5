// The source worker's hot path: receipts in, reads, sends, what lanes give back.
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "engine/buffer_budget.h"
#include "engine/last_packets.h"
#include "engine/source_worker.h"

namespace godwit {

// HOT PATH from here to CountSent.
absl::StatusOr<bool> SourceWorker::Step() {
  now_ = Clock::Steady().Now();
  CloseStreams();
  TakeOrders();
  // What comes back first, then what it makes room for: one round does all there is.
  GODWIT_RETURN_IF_ERROR(TakeReceipts());
  for (const size_t lane : awake_lanes()) CollectSent(lane);
  if (!new_lanes_.empty()) BringUpLanes();
  ReadAtOnce();
  GODWIT_RETURN_IF_ERROR(SendPackets());
  NoteWaits();
  GODWIT_RETURN_IF_ERROR(PumpReaders());
  CheckLanes();
  return std::exchange(look_again_, false);
}

// They are queue pairs. What has failed is told of in the next round.
absl::StatusOr<bool> SourceWorker::LookAtArmed(LaneSet lanes) {
  bool found = false;
  for (const size_t lane : lanes) {
    found |= CollectSent(lane) || !this->lanes()[lane]->status().ok();
  }
  return found;
}

absl::Status SourceWorker::TakeReceipts() {
  if (!receipts_wait_.load(std::memory_order_relaxed)) return absl::OkStatus();
  (void)receipts_wait_.exchange(false, std::memory_order_acquire);
  for (size_t i = 0; i < lane_slots_.size(); ++i) {
    LaneSlot& slot = lane_slots_[i];
    const uint64_t receipt = lane_receipts_[i].load(std::memory_order_relaxed);
    const uint64_t packets = LaneFramesOf(receipt);
    if (LaneGenerationOf(receipt) < slot.generation) continue;  // of the lane before this one
    if (LaneGenerationOf(receipt) == slot.generation && packets <= slot.receipted_packets) continue;
    // The target has the next lane already, while the last one still gives its buffers back.
    if (LaneGenerationOf(receipt) > slot.generation && packets == 0) continue;
    if (LaneGenerationOf(receipt) > slot.generation || packets > schedule_.sent_packets(i)) {
      return absl::InvalidArgumentError(absl::StrCat("the target acknowledges ", packets,
                                                     " packets on lane ", i, ", but only ",
                                                     schedule_.sent_packets(i), " were sent"));
    }
    schedule_.Receipted(i, packets - slot.receipted_packets, now_);
    slot.receipted_packets = packets;
    if (slot.up) NoteReceiptDue(i, /*progress=*/true);
    while (slot.freed_packets < packets && !slot.unreceipted.empty()) {
      (void)slot.unreceipted.Pop();
      ++slot.freed_packets;
    }
    NoteRest(i);
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    const uint32_t loaded = device_loaded_[i].load(std::memory_order_relaxed);
    if (loaded > device_counters_[i].packets.load(std::memory_order_relaxed)) {
      return absl::InvalidArgumentError(absl::StrCat("the target claims to have loaded ", loaded,
                                                     " packets of device ", names_[i],
                                                     ", more than were sent"));
    }
    devices_[i].loaded_packets = std::max(devices_[i].loaded_packets, loaded);
  }
  return absl::OkStatus();
}

// Whether each lane has a packet to send, and the only one two: what is read now would leave this
// processor's cache before its turn comes. (Of what was sent before, the sockets still have some:
// they go on.)
bool SourceWorker::EnoughToSend() const {
  size_t lanes = 0;
  size_t packets = 0;
  for (const LaneSlot& slot : lane_slots_) {
    if (!slot.up) continue;
    if (slot.with_lane.empty()) return false;
    ++lanes;
    packets += slot.with_lane.size();
  }
  return packets >= std::max<size_t>(lanes, 2);
}

// One packet, when there is no other that may go and the lanes have not enough to send: what has
// been read goes out while it is in this processor's cache. Devices in turn, as FindNext() takes
// them.
void SourceWorker::ReadAtOnce() {
  sends_first_ = false;
  if (!reads_at_once_ || FindNext().packet != nullptr) return;
  sends_first_ = EnoughToSend();
  if (sends_first_) return;
  for (size_t tried = 0; tried < devices_.size(); ++tried) {
    StateReader* const reader = devices_[(next_device_ + tried) % devices_.size()].reader.get();
    // One that has a packet waits for its window.
    if (reader == nullptr || !reader->reads_at_once() || reader->has_packet()) continue;
    const size_t packet_bytes = NextPacketBytes();
    if (!reader->ReadAtOnce(std::min(packet_bytes, limits_.at_once_bytes))) continue;
    ending_ = packet_bytes < std::min(limits_.packet_bytes, limits_.at_once_bytes);
    look_again_ = true;            // for the next one
    now_ = Clock::Steady().Now();  // it took its time
    return;
  }
}

absl::Status SourceWorker::PumpReaders() {
  for (size_t i = 0; i < devices_.size(); ++i) {
    DeviceSlot& device = devices_[i];
    if (device.reader == nullptr) continue;
    if (!device.reader->status().ok()) return device.reader->status();
    PumpReader(i);
    if (device.config_made || !device.config.has_value() || !device.reader->finished()) continue;
    Buffer buffer = arena().TryAcquire();
    if (!buffer) continue;  // a receipt will free one
    device.config_packet = device.reader->MakeConfigPacket(*device.config, std::move(buffer));
    device.config_made = true;
    look_again_ = true;
  }
  NoteHeld();
  return absl::OkStatus();
}

void SourceWorker::PumpReader(size_t device) {
  DeviceSlot& slot = devices_[device];
  StateReader& reader = *slot.reader;
  DeviceCounters& counters = device_counters_[device];
  if (slot.trip_began.count() > 0) TimeTrip(device);
  counters.read_bytes.store(reader.stream_bytes(), std::memory_order_relaxed);
  counters.read_packets.store(reader.packets(), std::memory_order_relaxed);
  const bool dry = reader.dry() && reader.idle();
  if (dry && !slot.was_dry) {
    counters.times_dry.fetch_add(1, std::memory_order_release);
    if (slot.when_dry != nullptr) slot.when_dry->Notify();
  }
  if (dry != slot.was_dry) counters.dry.store(dry, std::memory_order_relaxed);
  slot.was_dry = dry;
  if (reader.in_pre_copy() && hold_reads_.load(std::memory_order_relaxed)) return;
  const size_t packet_bytes = reader.idle() && !reader.reads_at_once() ? NextPacketBytes() : 0;
  if (packet_bytes == 0 || !reader.Pump(packet_bytes)) return;
  ending_ = packet_bytes < limits_.packet_bytes;
}

// Where the devices have said how long their streams will be. A stream that has more than it said
// is read as if it had said nothing.
size_t SourceWorker::NextPacketBytes() const {
  if (limits_.lanes == 1) return limits_.packet_bytes;
  uint64_t unread_bytes = 0;
  for (const DeviceSlot& device : devices_) {
    if (device.reader == nullptr || device.reader->in_pre_copy()) return limits_.packet_bytes;
    if (device.reader->ended()) continue;
    const uint64_t read_bytes = device.reader->stream_bytes();
    if (device.end_expected == 0 || read_bytes > device.end_expected) return limits_.packet_bytes;
    unread_bytes += device.end_expected - read_bytes;
  }
  return PacketBytesTowardsTheEnd(unread_bytes, limits_.lanes, limits_.chain_packets,
                                  limits_.packet_bytes);
}

// Once the first packet after an order has been read.
void SourceWorker::TimeTrip(size_t device) {
  DeviceSlot& slot = devices_[device];
  DeviceCounters& counters = device_counters_[device];
  const uint32_t before = counters.read_packets.load(std::memory_order_relaxed);
  if (slot.reader->packets() == before) return;
  const Clock::Duration began = std::exchange(slot.trip_began, Clock::Duration(0));
  if (counters.timed_packets.load(std::memory_order_acquire) != 0) return;
  counters.timed_since_ns.store(began.count(), std::memory_order_relaxed);
  counters.timed_packets.store(before + 1, std::memory_order_release);
}

std::optional<Clock::Duration> SourceWorker::TakeTrip(size_t device, uint32_t loaded) {
  DeviceCounters& counters = device_counters_[device];
  const uint32_t packets = counters.timed_packets.load(std::memory_order_acquire);
  if (packets == 0 || loaded < packets) return std::nullopt;
  const Clock::Duration since(counters.timed_since_ns.load(std::memory_order_relaxed));
  counters.timed_packets.store(0, std::memory_order_release);
  return Clock::Steady().Now() - since;
}

void SourceWorker::NoteHeld() {
  if (!hold_reads_.load(std::memory_order_relaxed) || reads_held()) return;
  for (const DeviceSlot& device : devices_) {
    if (device.reader != nullptr && device.reader->in_pre_copy() && !device.reader->idle()) return;
  }
  reads_held_.store(true, std::memory_order_release);
  events().Notify();
}

// A device whose window is full waits until a part of it is free: packets that go out together cost
// the target one wake-up and one receipt, and one by one they would go on coming one by one.
bool SourceWorker::MayTake(DeviceSlot& device, const Packet& packet) const {
  const uint64_t end = uint64_t{device.loaded_packets} + limits_.window_packets;
  const uint32_t next_index = packet.header.index;
  const uint64_t room = end > next_index ? end - next_index : 0;
  device.window_full = device.window_full ? room < window_part_ : room == 0;
  return !device.window_full;
}

SourceWorker::Next SourceWorker::FindNext() {
  if (!again_.empty()) return {&again_.front().packet, nullptr};
  size_t at = next_device_;
  for (size_t tried = 0; tried < devices_.size(); ++tried) {
    DeviceSlot& device = devices_[at];
    if (++at == devices_.size()) at = 0;
    if (device.reader == nullptr) continue;
    Packet* packet = nullptr;
    if (device.reader->has_packet()) {
      packet = &device.reader->front();
    } else if (device.config_packet.has_value()) {
      packet = &*device.config_packet;
    }
    if (packet != nullptr && MayTake(device, *packet)) return {packet, &device};
  }
  return {};
}

void SourceWorker::Drop(const Next& next) {
  if (next.device == nullptr) return again_.DropFront();
  const auto device = static_cast<size_t>(next.device - devices_.data());
  next_device_ = device + 1 < devices_.size() ? device + 1 : 0;
  if (next.device->reader->has_packet()) {
    next.device->reader->DropFront();
  } else {
    next.device->config_packet.reset();
  }
}

absl::Status SourceWorker::SendPackets() {
  lanes_wanted_ = false;
  for (Next next = FindNext(); next.packet != nullptr; next = FindNext()) {
    const int lane = schedule_.Pick(next.packet->header.payload_bytes, now_, ending_);
    if (lane < 0) {
      lanes_wanted_ = true;
      break;
    }
    if (next.device == nullptr) GODWIT_RETURN_IF_ERROR(MakeReadyAgain());
    const auto at = static_cast<size_t>(lane);
    LaneSlot& slot = lane_slots_[at];
    Buffer& buffer = slot.burst[slot.burst_packets];
    PacketHeader& header = slot.burst_headers[slot.burst_packets];
    ++slot.burst_packets;
    buffer = std::move(next.packet->buffer);
    header = next.packet->header;
    Drop(next);

    header.lane_sequence = LaneCount(slot.generation, schedule_.sent_packets(at));
    PacketSeal* const seal = SealOf(at);
    header.sealed = seal != nullptr;
    EncodePacketHeader(header, buffer.header(kFrameHeaderBytes));
    if (seal != nullptr) seal->Seal(static_cast<uint16_t>(at), buffer);

    const size_t payload_bytes = buffer.payload_bytes();
    CountSent(at, header, payload_bytes);
    if (header.is_config() && !all_sent()) NoteCompletion();
    schedule_.Sent(at, payload_bytes, now_);
    // No wire stands still while the next packet is sealed. To choose one takes no time.
    if (seal != nullptr || slot.burst_packets == kBurstPacketsMax) {
      GODWIT_RETURN_IF_ERROR(GiveBurst(at));
      now_ = Clock::Steady().Now();
    }
    look_again_ |= reads_at_once_;  // for a packet to send after it
  }
  for (size_t at = 0; at < lane_slots_.size(); ++at) {
    if (lane_slots_[at].burst_packets > 0) GODWIT_RETURN_IF_ERROR(GiveBurst(at));
  }
  return absl::OkStatus();
}

// To its lane, which has room for it. Outside SendPackets() there is none.
absl::Status SourceWorker::GiveBurst(size_t lane) {
  LaneSlot& slot = lane_slots_[lane];
  const size_t packets = std::exchange(slot.burst_packets, 0);
  NoteWork();
  const size_t taken = lanes()[lane]->Send(absl::MakeSpan(slot.burst).first(packets));
  for (size_t i = 0; i < taken; ++i) {
    Sent& sent = slot.with_lane.PushInPlace();
    sent.at = now_;
    sent.header = slot.burst_headers[i];
  }
  NoteReceiptDue(lane, /*progress=*/false);
  if (trace() != nullptr) NoteRest(lane);
  if (taken == packets) return absl::OkStatus();
  // The queue has room (the schedule says so), so the lane is broken.
  for (size_t i = taken; i < packets; ++i) {
    SendAgain(lane, {std::move(slot.burst[i]), slot.burst_headers[i]});  // and counted already
  }
  if (lanes()[lane]->status().ok()) {
    return absl::InternalError(absl::StrCat("lane ", lane, " takes no packet and has no error"));
  }
  LoseLane(lane, lanes()[lane]->status());
  return absl::OkStatus();
}

void SourceWorker::NoteReceiptDue(size_t lane, bool progress) {
  const LaneSlot& slot = lane_slots_[lane];
  std::atomic<int64_t>& since = lane_counters_[lane].waits_since;
  if (slot.receipted_packets == schedule_.sent_packets(lane)) {
    since.store(0, std::memory_order_relaxed);
  } else if (progress || since.load(std::memory_order_relaxed) == 0) {
    since.store(now_.count(), std::memory_order_relaxed);
  }
}

void SourceWorker::CountSent(size_t lane, const PacketHeader& header, size_t payload_bytes) {
  LaneCounters& counters = lane_counters_[lane];
  counters.queue_depth.store(static_cast<uint32_t>(schedule_.under_way(lane)),
                             std::memory_order_relaxed);
  counters.bytes.fetch_add(payload_bytes, std::memory_order_relaxed);
  counters.packets.fetch_add(1, std::memory_order_relaxed);
  if (header.epoch > 0) {
    counters.sent_again.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  DeviceCounters& device = device_counters_[header.device];
  device.bytes.fetch_add(header.is_config() ? 0 : payload_bytes, std::memory_order_relaxed);
  device.packets.fetch_add(1, std::memory_order_relaxed);
}

// To be sent again, on whichever lane.
void SourceWorker::SendAgain(size_t lane, Packet packet) { again_.Push({lane, std::move(packet)}); }

// The first that is to be sent again: its buffer holds what went out, sealed or not; what goes out
// next has another epoch.
absl::Status SourceWorker::MakeReadyAgain() {
  Again& again = again_.front();
  Packet& packet = again.packet;
  if (packet.header.sealed) {
    const absl::Status opened = seal().Open(static_cast<uint16_t>(again.lane), packet.buffer);
    if (!opened.ok()) {
      return absl::InternalError(
          absl::StrCat("packet ", packet.header.index, " of device ", names_[packet.header.device],
                       " has changed in this host's memory since it was sealed"));
    }
  }
  return NextEpoch(packet.header);
}

// Returns whether anything came back.
bool SourceWorker::CollectSent(size_t lane) {
  LaneSlot& slot = lane_slots_[lane];
  bool any = false;
  size_t count = 0;
  do {
    count = lanes()[lane]->PollSent(absl::MakeSpan(returned_));
    if (count == 0) break;
    any = true;
    schedule_.Returned(lane, count);
    for (Buffer& returned : absl::MakeSpan(returned_).first(count)) {
      Buffer buffer = std::move(returned);
      const Sent& sent = slot.with_lane.front();
      if (trace() != nullptr) TraceReturn(lane, sent);
      if (slot.freed_packets < slot.receipted_packets) {
        ++slot.freed_packets;  // its receipt came before its completion
      } else if (slot.up) {
        slot.unreceipted.Push({std::move(buffer), sent.header});
      } else {
        ++slot.freed_packets;
        SendAgain(lane, {std::move(buffer), sent.header});
      }
      slot.with_lane.DropFront();
    }
  } while (count == returned_.size());
  if (any) NoteWork();
  NoteRest(lane);
  return any;
}

// A buffer is free once the target has receipted it and the lane has given it back. What the lane
// does with one that is not receipted, as long as it is not broken, is of no interest: and a NIC
// that need not tell of it costs no wake-up. Most have left when their receipts come. (A trace says
// when they did.)
void SourceWorker::NoteRest(size_t lane) {
  const LaneSlot& slot = lane_slots_[lane];
  const bool waited_for = trace() != nullptr && !slot.with_lane.empty();
  const bool all_back = slot.freed_packets >= slot.receipted_packets;
  // What has failed is looked at until it is lost, and has given all back.
  SetResting(lane, slot.up && all_back && !waited_for && lanes()[lane]->status().ok());
}

// After SendPackets(): either no lane has room that is worth using, or they have enough to send,
// which is waiting for lanes and not counted here; or what there is may not be sent, or there is
// nothing.
void SourceWorker::NoteWaits() {
  if (lanes_wanted_ || sends_first_) {
    starved_.Set(false);
    stalled_.Set(false);
    return;
  }
  bool ready = !again_.empty();
  for (const DeviceSlot& device : devices_) {
    ready |= device.config_packet.has_value() ||
             (device.reader != nullptr && device.reader->has_packet());
  }
  const bool reads = reads_at_once_ && look_again_;
  const bool waits = ready || !(reads || all_sent());
  const bool room = waits && schedule_.HasRoom(limits_.packet_bytes);
  starved_.Set(room && !ready);
  stalled_.Set(room && ready);
}

void SourceWorker::TraceReturn(size_t lane, const Sent& sent) {
  TraceSpan span;
  span.track = TraceSpan::Track::kLane;
  span.number = static_cast<uint32_t>(lane);
  span.name = "send";
  span.begin = sent.at;
  span.end = Clock::Steady().Now();
  span.bytes = sent.header.payload_bytes;
  span.device = sent.header.device;
  span.index = sent.header.index;
  trace()->OnSpan(span);
}

void SourceWorker::CheckLanes() {
  for (const size_t i : awake_lanes()) {
    if (!lanes()[i]->status().ok()) {
      LoseLane(i, lanes()[i]->status());
    } else if (lanes()[i]->peer_closed()) {
      LoseLane(i, absl::UnavailableError("the target closed it"));
    }
  }
}

// Before the last packet goes to its lane: the target may answer it before the lane is done.
void SourceWorker::NoteCompletion() {
  for (const DeviceSlot& device : devices_) {
    if (!device.config_made || device.config_packet.has_value()) return;
  }
  for (size_t i = 0; i < devices_.size(); ++i) {
    device_counters_[i].stream_crc.store(devices_[i].reader->stream_crc(),
                                         std::memory_order_relaxed);
  }
  all_sent_.store(true, std::memory_order_release);
  look_again_ = true;  // for CloseStreams()
}

// In the round after the last packet's, so that it is on its way while drivers clean up. There are
// some that don't leave STOP_COPY before.
void SourceWorker::CloseStreams() {
  if (!all_sent() || streams_closed()) return;
  for (DeviceSlot& device : devices_) device.reader.reset();
  streams_closed_.store(true, std::memory_order_release);
  events().Notify();
}

}  // namespace godwit
