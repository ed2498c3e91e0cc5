#include "engine/lane_schedule.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/check.h"
#include "engine/packet.h"

namespace godwit {
namespace {

// A slower lane gets a packet now, although a faster one would have it there sooner in a while, up
// to that factor: measurements are no better.
constexpr double kWorthWaiting = 1.5;
// Arrivals that are less than this part of a packet's own time apart are the same: the lane that
// has carried less takes it.
constexpr double kSameArrival = 0.5;
// The share of the newest trip in what is known of a lane.
constexpr double kNewestShare = 0.25;
// 100 GB/s: no lane is faster, and a trip as short as the shortest must not look like one.
constexpr double kNsAByteMin = 0.01;

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

LaneSchedule::LaneSchedule(size_t lanes, uint32_t queue_packets) : queue_packets_(queue_packets) {
  GODWIT_CHECK(lanes <= kLanesMax);
  lanes_.reserve(lanes);
  for (size_t i = 0; i < lanes; ++i) lanes_.emplace_back(queue_packets);
  for (LaneState& lane : lanes_) Expect(lane);
  NoteLanes();
}

bool LaneSchedule::HasRoom(uint64_t bytes) const {
  return std::any_of(lanes_.begin(), lanes_.end(),
                     [bytes](const LaneState& lane) { return bytes < lane.room_end; });
}

// HOT PATH. Once for each packet, over all lanes.
int LaneSchedule::Pick(uint64_t bytes, Clock::Duration now, bool ending) const {
  const double now_ns = Nanoseconds(now);
  const auto packet_bytes = static_cast<double>(bytes);
  const double late_ns = now_ns - shortest_trip_ns_;
  std::array<double, kLanesMax> times;  // until it would have come; kNever: there is no room
  double best_time = kNever;
  double best_cost = 0;
  double full_lanes_time = kNever;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const LaneState& lane = lanes_[i];
    double cost = lane.ns_a_byte;
    double clear_at = lane.clear_at;
    if (late_ns > lane.late_at) {
      cost = CostOfLate(lane, now_ns);
      clear_at = ClearAt(lane, cost);
    }
    const double time = shortest_trip_ns_ + std::max(0.0, clear_at - now_ns) + packet_bytes * cost;
    times[i] = kNever;
    if (bytes >= lane.room_end) {
      if (lane.waited_for) full_lanes_time = std::min(full_lanes_time, time);
      continue;
    }
    if (lane.may_try && !ending && IsTrialDue(lane, time)) return static_cast<int>(i);
    times[i] = time;
    if (time >= best_time) continue;
    best_time = time;
    best_cost = cost;
  }
  if (best_time == kNever || best_time > (ending ? 1 : kWorthWaiting) * full_lanes_time) return -1;

  const double same_time = best_time + kSameArrival * packet_bytes * best_cost;
  int best = -1;
  uint64_t least_packets = std::numeric_limits<uint64_t>::max();
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (times[i] > same_time || lanes_[i].sent_packets >= least_packets) continue;
    best = static_cast<int>(i);
    least_packets = lanes_[i].sent_packets;
  }
  return best;
}

void LaneSchedule::Expect(LaneState& lane) const {
  NoteRoom(lane);
  const bool sends = !lane.trips.empty();
  // Only a known one is waited for, and for its receipts: the others' may be far, and a lane whose
  // packets have all come, and which still does not give them back, has stopped.
  lane.waited_for = lane.up && lane.proven && lane.measured && sends;
  lane.may_try = lane.measured && !sends;
  lane.clear_at = ClearAt(lane, lane.ns_a_byte);
  if (!lane.measured) {
    lane.late_at = -kNever;
  } else if (!sends) {
    lane.late_at = kNever;
  } else {
    lane.late_at = Nanoseconds(lane.oldest.began) +
                   static_cast<double>(lane.oldest.lane_bytes) * lane.ns_a_byte;
  }
}

void LaneSchedule::Sent(size_t lane, uint64_t bytes, Clock::Duration now) {
  LaneState& at = lanes_[lane];
  ++at.sent_packets;
  at.in_flight_bytes += bytes;
  Trip trip = {now, bytes, at.in_flight_bytes};
  if (at.trips.empty()) at.oldest = trip;
  at.trips.Push(std::move(trip));
  if (at.trips.size() == 1) {
    Expect(at);
  } else {  // of the rest only the oldest trip counts, which is the same
    at.clear_at += static_cast<double>(bytes) * at.ns_a_byte;
    NoteRoom(at);
  }
}

void LaneSchedule::Receipted(size_t lane, uint64_t packets, Clock::Duration now) {
  LaneState& at = lanes_[lane];
  at.receipted_packets += packets;
  Trip last;
  for (uint64_t i = 0; i < packets; ++i) {
    last = at.trips.Pop();
    at.in_flight_bytes -= last.bytes;
    carried_bytes_ += last.bytes;
  }
  at.receipt_at = now;
  at.carried_before = carried_bytes_;
  if (!at.trips.empty()) at.oldest = at.trips.front();
  at.proven = true;
  // Those before it have waited for this one's receipt.
  if (packets > 0) Measure(at, last, now);
  Expect(at);
}

void LaneSchedule::Measure(LaneState& lane, const Trip& trip, Clock::Duration now) {
  const double trip_ns = std::max(1.0, Nanoseconds(now - trip.began));
  shortest_trip_ns_ = shortest_trip_ns_ == 0 ? trip_ns : std::min(shortest_trip_ns_, trip_ns);
  const double ns_a_byte =
      std::max(kNsAByteMin, (trip_ns - shortest_trip_ns_) / static_cast<double>(trip.lane_bytes));
  if (!lane.measured) lane.ns_a_byte = ns_a_byte;
  lane.ns_a_byte += kNewestShare * (ns_a_byte - lane.ns_a_byte);
  // It has just not taken longer than that: one trip is enough to trust it again.
  lane.ns_a_byte = std::min(lane.ns_a_byte,
                            std::max(kNsAByteMin, trip_ns / static_cast<double>(trip.lane_bytes)));
  lane.measured = true;
  NoteLanes();
}

void LaneSchedule::Down(size_t lane) {
  lanes_[lane].up = false;
  Expect(lanes_[lane]);
  NoteLanes();
}

void LaneSchedule::NoteLanes() {
  up_lanes_ = 0;
  double best = kNever;
  for (const LaneState& lane : lanes_) {
    if (!lane.up) continue;
    ++up_lanes_;
    if (lane.measured) best = std::min(best, lane.ns_a_byte);
  }
  unmeasured_ns_a_byte_ = best == kNever ? kNsAByteMin : best;
}

void LaneSchedule::Up(size_t lane) {
  lanes_[lane] = LaneState(queue_packets_);
  lanes_[lane].proven = false;
  lanes_[lane].carried_before = carried_bytes_;
  Expect(lanes_[lane]);
  NoteLanes();
}

}  // namespace godwit
