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

double Nanoseconds(Clock::Duration duration) { return static_cast<double>(duration.count()); }

}  // namespace

LaneSchedule::LaneSchedule(size_t lanes, uint32_t queue_packets) : queue_packets_(queue_packets) {
  GODWIT_CHECK(lanes <= kLanesMax);
  lanes_.reserve(lanes);
  for (size_t i = 0; i < lanes; ++i) lanes_.emplace_back(queue_packets);
}

uint64_t LaneSchedule::UnderWay(const LaneState& lane) {
  return lane.sent_packets - std::min(lane.returned_packets, lane.receipted_packets);
}

bool LaneSchedule::HasRoom(const LaneState& lane, uint64_t bytes) const {
  const uint64_t under_way = UnderWay(lane);
  if (!lane.proven) return under_way == 0;
  if (under_way >= queue_packets_) return false;
  return lane.measured || under_way < 2 || lane.in_flight_bytes + bytes <= kUnmeasuredBytesMax;
}

bool LaneSchedule::HasRoom(uint64_t bytes) const {
  return std::any_of(lanes_.begin(), lanes_.end(),
                     [&](const LaneState& lane) { return lane.up && HasRoom(lane, bytes); });
}

double LaneSchedule::Cost(const LaneState& lane, double unmeasured, Clock::Duration now) const {
  if (lane.trips.empty()) return lane.measured ? lane.ns_a_byte : unmeasured;
  // A lane that has come to a halt is known by what does not come back.
  const double so_far = (Nanoseconds(now - lane.oldest.began) - shortest_trip_ns_) /
                        static_cast<double>(lane.oldest.lane_bytes);
  return std::max(lane.measured ? lane.ns_a_byte : unmeasured, so_far);
}

double LaneSchedule::SinceReceipt(const LaneState& lane, Clock::Duration now) {
  return lane.trips.empty() ? 0 : Nanoseconds(now - std::max(lane.receipt_at, lane.oldest.began));
}

int LaneSchedule::Pick(uint64_t bytes, Clock::Duration now, bool ending) const {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  // What is unknown is taken for as good as the best.
  double unmeasured = kNever;
  int up = 0;
  for (const LaneState& lane : lanes_) {
    if (lane.up) ++up;
    if (lane.up && lane.measured) unmeasured = std::min(unmeasured, lane.ns_a_byte);
  }
  if (unmeasured == kNever) unmeasured = kNsAByteMin;

  std::array<double, kLanesMax> times;  // kNever: it can't take the packet now
  double best_time = kNever;
  double best_cost = 0;
  double full_lanes_time = kNever;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const LaneState& lane = lanes_[i];
    times[i] = kNever;
    if (!lane.up) continue;
    const double cost = Cost(lane, unmeasured, now);
    // A part of what is in flight has come since the last receipt.
    const double ahead =
        std::max(0.0, static_cast<double>(lane.in_flight_bytes) * cost - SinceReceipt(lane, now));
    const double time = shortest_trip_ns_ + ahead + static_cast<double>(bytes) * cost;
    if (!HasRoom(lane, bytes)) {
      // Only a known one is waited for, and for its receipts: the others' may be far, and a lane
      // whose packets have all come, and which still does not give them back, has stopped.
      if (lane.proven && lane.measured && !lane.trips.empty()) {
        full_lanes_time = std::min(full_lanes_time, time);
      }
      continue;
    }
    const bool idle = lane.measured && lane.trips.empty();
    const double busy_ns =
        static_cast<double>(carried_bytes_ - lane.carried_before) * unmeasured / up;
    if (!ending && idle && busy_ns > kTrialPause * time) {
      return static_cast<int>(i);
    }
    times[i] = time;
    if (time >= best_time) continue;
    best_time = time;
    best_cost = cost;
  }
  if (best_time == kNever || best_time > (ending ? 1 : kWorthWaiting) * full_lanes_time) return -1;

  const double same_time = best_time + kSameArrival * static_cast<double>(bytes) * best_cost;
  int best = -1;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (times[i] > same_time) continue;
    if (best < 0 || lanes_[i].sent_packets < lanes_[static_cast<size_t>(best)].sent_packets) {
      best = static_cast<int>(i);
    }
  }
  return best;
}

void LaneSchedule::Sent(size_t lane, uint64_t bytes, Clock::Duration now) {
  LaneState& at = lanes_[lane];
  ++at.sent_packets;
  at.in_flight_bytes += bytes;
  Trip trip = {now, bytes, at.in_flight_bytes};
  if (at.trips.empty()) at.oldest = trip;
  at.trips.Push(std::move(trip));
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
}

void LaneSchedule::Up(size_t lane) {
  lanes_[lane] = LaneState(queue_packets_);
  lanes_[lane].proven = false;
  lanes_[lane].carried_before = carried_bytes_;
}

}  // namespace godwit
