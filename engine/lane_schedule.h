// Which lane a packet takes.
#ifndef GODWIT_ENGINE_LANE_SCHEDULE_H_
#define GODWIT_ENGINE_LANE_SCHEDULE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/clock.h"
#include "base/fixed_queue.h"

namespace godwit {

// Measures each lane by the trips of its packets and sends the next one where it is expected to
// have arrived first. Where that is a lane that is full it waits, rather than to give a packet to
// one so slow that it would come later and hold the target's window until then: docs/lanes.md.
//
// A trip is from Sent() to Receipted(). The shortest of the session tells of the way itself; what a
// trip took longer, by the bytes that the lane had then, is what the lane takes a byte.
//
// Ownership: nothing but its counts.
// Threads:   single-threaded.
// Blocking:  never; only the constructor and Up() allocate.
// Errors:    none. What a peer says is checked by the caller.
class LaneSchedule {
 public:
  // Of a lane that nothing is known of that much is under way, or two packets.
  static constexpr uint64_t kUnmeasuredBytesMax = uint64_t{2} << 20;
  // An idle lane is tried again after so many of the times that a packet is expected to take on it,
  // in which all lanes were busy: in a lull nobody learns anything, and after it packets are few.
  static constexpr int kTrialPause = 16;

  // At most `queue_packets` are under way on each.
  LaneSchedule(size_t lanes, uint32_t queue_packets);

  // The lane for a packet of so many bytes, or -1: none has room, or one that has none now is worth
  // waiting for. `ending`: it is one of the stream's last, and lanes are to end together; else a
  // lane that has long carried nothing, being slow, may get it, to be measured again.
  int Pick(uint64_t bytes, Clock::Duration now, bool ending) const;
  // Whether there is a lane that could take such a packet, worth using or not.
  bool HasRoom(uint64_t bytes) const;

  // REQUIRES: Pick() has just given that lane.
  void Sent(size_t lane, uint64_t bytes, Clock::Duration now);
  // The transport is done with so many more of its packets. A receipt may overtake this.
  void Returned(size_t lane, uint64_t packets) {
    lanes_[lane].returned_packets += packets;
    NoteRoom(lanes_[lane]);
  }
  // The target has so many more of them. REQUIRES: they were sent
  void Receipted(size_t lane, uint64_t packets, Clock::Duration now);
  void Down(size_t lane);
  // It was made again: nothing is under way or known, and it carries one packet until it is
  // receipted.
  void Up(size_t lane);

  uint64_t under_way(size_t lane) const { return UnderWay(lanes_[lane]); }
  uint64_t sent_packets(size_t lane) const { return lanes_[lane].sent_packets; }

 private:
  struct Trip {
    Clock::Duration began{0};
    uint64_t bytes = 0;       // of this packet
    uint64_t lane_bytes = 0;  // in flight then, with this one
  };
  struct LaneState {
    explicit LaneState(uint32_t queue_packets) : trips(queue_packets) {}
    // For Pick(), kept up to date. Times are in ns of the clock: the oldest packet is late once the
    // shortest trip began after late_at; as long as it is not, what is in flight will all have come
    // by clear_at.
    double late_at = 0;
    double clear_at = 0;
    double ns_a_byte = 0;     // if it is measured
    uint64_t room_end = 0;    // it could take a packet of fewer bytes
    bool waited_for = false;  // where it can't: for receipts, which are known to come
    bool may_try = false;     // idle, so that it may be time to measure it again
    uint64_t sent_packets = 0;

    FixedQueue<Trip> trips;  // of packets that are not yet receipted, oldest first
    Trip oldest;             // as its front, if there is one
    bool up = true;
    bool proven = true;     // something was receipted since it was made again
    bool measured = false;  // ns_a_byte is known
    uint64_t in_flight_bytes = 0;
    uint64_t returned_packets = 0;
    uint64_t receipted_packets = 0;
    Clock::Duration receipt_at{0};  // the last
    uint64_t carried_before = 0;    // of carried_bytes_: until then
  };

  static double Nanoseconds(Clock::Duration duration) {
    return static_cast<double>(duration.count());
  }
  static uint64_t UnderWay(const LaneState& lane) {
    return lane.sent_packets - std::min(lane.returned_packets, lane.receipted_packets);
  }
  // After each change of what is under way.
  void NoteRoom(LaneState& lane) const {
    const uint64_t under_way = UnderWay(lane);
    const bool has_room = under_way < (lane.proven ? queue_packets_ : 1);
    if (!lane.up || !has_room) {
      lane.room_end = 0;
    } else if (lane.measured || under_way < 2) {
      lane.room_end = std::numeric_limits<uint64_t>::max();
    } else {
      lane.room_end =
          kUnmeasuredBytesMax + 1 - std::min(lane.in_flight_bytes, kUnmeasuredBytesMax + 1);
    }
  }
  // Whether the lanes have been busy for long since that one, which is idle, carried something.
  bool IsTrialDue(const LaneState& lane, double packet_ns) const {
    const double carried_since = static_cast<double>(carried_bytes_ - lane.carried_before);
    return carried_since * unmeasured_ns_a_byte_ > kTrialPause * packet_ns * up_lanes_;
  }
  // What a byte takes on a lane that is not measured, or whose oldest packet is late: a lane that
  // has come to a halt is known by what does not come back.
  double CostOfLate(const LaneState& lane, double now_ns) const {
    const double known = lane.measured ? lane.ns_a_byte : unmeasured_ns_a_byte_;
    if (lane.trips.empty()) return known;
    const double so_far_ns = now_ns - Nanoseconds(lane.oldest.began) - shortest_trip_ns_;
    return std::max(known, so_far_ns / static_cast<double>(lane.oldest.lane_bytes));
  }
  // A part of what is in flight has come since the last receipt.
  static double ClearAt(const LaneState& lane, double cost) {
    if (lane.trips.empty()) return 0;
    const Clock::Duration since = std::max(lane.receipt_at, lane.oldest.began);
    return Nanoseconds(since) + static_cast<double>(lane.in_flight_bytes) * cost;
  }
  // After each change of what is in flight, or known.
  void Expect(LaneState& lane) const;
  void NoteLanes();
  void Measure(LaneState& lane, const Trip& trip, Clock::Duration now);

  const uint32_t queue_packets_;
  std::vector<LaneState> lanes_;
  double shortest_trip_ns_ = 0;  // 0: none yet
  // Of the lanes that are up: how many, and the best's, for what is unknown is taken for as good.
  int up_lanes_ = 0;
  double unmeasured_ns_a_byte_ = 0;
  uint64_t carried_bytes_ = 0;  // by all lanes
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_LANE_SCHEDULE_H_
