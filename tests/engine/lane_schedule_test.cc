// Goal: packets go where they arrive first, whatever the lanes' speeds and ways are: a slow lane
// costs no more than it would bring, lanes alike are used alike, lanes end together where packets
// get smaller, and nothing that was slow once is slow for ever. Lanes and clock are simulated, so
// times are exact.
#include "engine/lane_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "base/units.h"
#include "engine/last_packets.h"

namespace godwit {
namespace {

using Duration = Clock::Duration;

constexpr uint32_t kQueuePackets = 8;
constexpr uint32_t kChainPackets = 4;
constexpr uint32_t kWindowPackets = 59;  // of the default arena, with two devices
constexpr Duration kMillisecond = std::chrono::milliseconds(1);

struct Wire {
  double ns_a_byte = 1;
  Duration way = kMillisecond / 10;  // there and, with the receipt, back
  uint64_t bytes = 0;
  Duration free_at{0};
  Duration last_arrival{0};
};

// One stream, as fast as the target's window allows, over lanes that take a packet after the other.
class LaneScheduleTest : public testing::Test {
 protected:
  void Lanes(const std::vector<double>& ns_a_byte) {
    wires_.clear();
    for (const double each : ns_a_byte) wires_.push_back({.ns_a_byte = each});
    schedule_.emplace(wires_.size(), kQueuePackets);
    receipts_.clear();
    loaded_.clear();
    next_index_ = loaded_packets_ = 0;
  }

  int Pick(uint64_t bytes, bool ending = false) { return schedule_->Pick(bytes, now_, ending); }

  void Send(size_t lane, uint64_t bytes) {
    Wire& wire = wires_[lane];
    schedule_->Sent(lane, bytes, now_);
    wire.bytes += bytes;
    wire.free_at = std::max(wire.free_at, now_) +
                   Duration(static_cast<int64_t>(static_cast<double>(bytes) * wire.ns_a_byte));
    wire.last_arrival = wire.free_at + wire.way / 2;
    receipts_.emplace(wire.free_at + wire.way, Receipt{lane, next_index_++});
    loaded_.push_back(false);
  }

  // To the next receipt; false: nothing is under way.
  bool NextReceipt() {
    if (receipts_.empty()) return false;
    const auto [at, receipt] = *receipts_.begin();
    receipts_.erase(receipts_.begin());
    now_ = at;
    schedule_->Returned(receipt.lane, 1);
    schedule_->Receipted(receipt.lane, 1, now_);
    loaded_[receipt.index] = true;
    while (loaded_packets_ < loaded_.size() && loaded_[loaded_packets_]) ++loaded_packets_;
    return true;
  }

  // Moves so many bytes in packets as `size_of` cuts them from what is left. What it took.
  Duration Move(uint64_t bytes, const std::function<uint64_t(uint64_t left)>& size_of) {
    const Duration began = now_;
    while (bytes > 0) {
      const uint64_t size = std::min(bytes, size_of(bytes));
      const bool in_window = next_index_ < loaded_packets_ + kWindowPackets;
      const int lane = in_window ? Pick(size, /*ending=*/size < kMiB) : -1;
      if (lane < 0) {
        if (!NextReceipt()) {
          ADD_FAILURE() << "no lane for " << size << " bytes, and nothing is under way";
          break;
        }
        continue;
      }
      Send(static_cast<size_t>(lane), size);
      bytes -= size;
    }
    while (NextReceipt()) {
    }
    return now_ - began;
  }
  Duration Move(uint64_t bytes) {
    return Move(bytes, [](uint64_t) { return kMiB; });
  }

  double ShareOf(size_t lane) const {
    uint64_t total = 0;
    for (const Wire& wire : wires_) total += wire.bytes;
    return static_cast<double>(wires_[lane].bytes) / static_cast<double>(total);
  }
  // Of what the lanes could move together.
  double Efficiency(uint64_t bytes, Duration time) const {
    double bytes_a_ns = 0;
    for (const Wire& wire : wires_) bytes_a_ns += 1 / wire.ns_a_byte;
    return static_cast<double>(bytes) / static_cast<double>(time.count()) / bytes_a_ns;
  }

  struct Receipt {
    size_t lane = 0;
    size_t index = 0;
  };
  std::vector<Wire> wires_;
  std::optional<LaneSchedule> schedule_;
  Duration now_ = std::chrono::hours(1);
  std::multimap<Duration, Receipt> receipts_;
  size_t next_index_ = 0;
  std::vector<bool> loaded_;
  size_t loaded_packets_ = 0;
};

TEST_F(LaneScheduleTest, LanesAlikeCarryAlike) {
  Lanes({1, 1, 1, 1});
  const Duration time = Move(kGiB);
  for (size_t lane = 0; lane < 4; ++lane) EXPECT_NEAR(ShareOf(lane), 0.25, 0.01);
  EXPECT_GT(Efficiency(kGiB, time), 0.98);
}

TEST_F(LaneScheduleTest, ALaneATenthAsFastCostsLessThanFifteenInAHundredOfTheirRates) {
  for (const uint64_t bytes : {kGiB / 4, kGiB, 4 * kGiB}) {
    Lanes({1, 1, 10, 1});
    const Duration time = Move(bytes);
    EXPECT_GT(Efficiency(bytes, time), 0.85) << bytes;
    EXPECT_LT(ShareOf(2), 0.05) << bytes;  // of 0.1 / 3.1 that would be its part
  }
}

TEST_F(LaneScheduleTest, AnySlowLaneCostsLessThanFifteenInAHundred) {
  for (const double slowness : {1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 50.0, 100.0}) {
    for (const size_t lanes : {2U, 4U, 16U}) {
      std::vector<double> ns_a_byte(lanes, 1);
      ns_a_byte[lanes / 2] = slowness;
      Lanes(ns_a_byte);
      const Duration time = Move(lanes * 2 * kGiB);
      EXPECT_GT(Efficiency(lanes * 2 * kGiB, time), 0.85)
          << slowness << " times slower, lanes " << lanes;
    }
  }
}

TEST_F(LaneScheduleTest, LanesEndTogetherWherePacketsGetSmaller) {
  struct Case {
    std::vector<double> lanes;
    uint64_t bytes_apart_max;  // as the slowest lane takes them
  };
  // A lane a tenth as fast has its last packet before they get smaller.
  for (const auto& [lanes, bytes_apart_max] :
       {Case{{1, 1, 1, 1}, 128 * kKiB}, Case{{1, 2, 3, 4}, 128 * kKiB},
        Case{{1, 1, 1, 10}, kMiB}}) {
    Lanes(lanes);
    Move(kGiB / 2, [this](uint64_t left) {
      return PacketBytesTowardsTheEnd(left, static_cast<uint32_t>(wires_.size()), kChainPackets,
                                      kMiB);
    });
    Duration first = Duration::max();
    Duration last{0};
    for (const Wire& wire : wires_) {
      first = std::min(first, wire.last_arrival);
      last = std::max(last, wire.last_arrival);
    }
    const double bound_ns =
        static_cast<double>(bytes_apart_max) * *std::max_element(lanes.begin(), lanes.end());
    EXPECT_LT(last - first, Duration(static_cast<int64_t>(bound_ns)))
        << testing::PrintToString(lanes);
  }
}

TEST_F(LaneScheduleTest, WaitsForAFullLaneThatIsTenTimesAsFast) {
  Lanes({1, 30});
  Move(64 * kMiB);
  const uint64_t slow = wires_[1].bytes;
  for (uint32_t i = 0; i < kQueuePackets; ++i) {
    ASSERT_EQ(Pick(kMiB), 0) << i;
    Send(0, kMiB);
  }
  EXPECT_EQ(Pick(kMiB), -1);
  ASSERT_TRUE(NextReceipt());
  EXPECT_EQ(Pick(kMiB), 0);
  EXPECT_EQ(wires_[1].bytes, slow);
}

TEST_F(LaneScheduleTest, DoesNotWaitForAFastLaneThatHasComeToAHalt) {
  Lanes({1, 30});
  Move(64 * kMiB);
  while (schedule_->under_way(0) < kQueuePackets) Send(0, kMiB);
  ASSERT_EQ(Pick(kMiB), -1);
  now_ += std::chrono::seconds(1);
  EXPECT_EQ(Pick(kMiB), 1);
}

// Where the way is long and the queues are short, no lane is full of bytes, and none is faster.
TEST_F(LaneScheduleTest, LanesOnALongWayAreAllKeptFull) {
  Lanes({0.01, 0.01, 0.02, 0.01});
  for (int i = 0; i < 4; ++i) {
    wires_[static_cast<size_t>(i)].way = 20 * kMillisecond + i * kMillisecond / 10;
  }
  const Duration time = Move(kGiB / 2);
  // 32 packets a way of 20 ms are 512 packets in 16 ways; and one to find out about the lanes.
  EXPECT_LT(time, 19 * 20 * kMillisecond);
  for (size_t lane = 0; lane < 4; ++lane) EXPECT_GT(ShareOf(lane), 0.2);
}

TEST_F(LaneScheduleTest, NothingIsGivenToALaneThatIsNotKnownBeyondTheBound) {
  Lanes({1});
  Send(0, kMiB);
  Send(0, kMiB);
  EXPECT_EQ(Pick(1), -1);
  ASSERT_TRUE(NextReceipt());
  EXPECT_EQ(Pick(kMiB), 0);

  Lanes({1});
  uint64_t bytes = 0;
  while (Pick(kMiB / 2) == 0) {
    Send(0, kMiB / 2);
    bytes += kMiB / 2;
  }
  EXPECT_EQ(bytes, LaneSchedule::kUnmeasuredBytesMax);
}

TEST_F(LaneScheduleTest, ALaneThatWasMadeAgainCarriesOnePacketUntilItsReceipt) {
  Lanes({1, 1});
  Move(64 * kMiB);
  schedule_->Down(1);
  for (uint32_t i = 0; i < kQueuePackets; ++i) {
    ASSERT_EQ(Pick(kMiB), 0);
    Send(0, kMiB);
  }
  EXPECT_EQ(Pick(kMiB), -1);
  schedule_->Up(1);
  ASSERT_EQ(Pick(kMiB), 1);
  schedule_->Sent(1, kMiB, now_);
  EXPECT_EQ(Pick(kMiB), -1);
  schedule_->Returned(1, 1);
  EXPECT_EQ(Pick(kMiB), -1);
  schedule_->Receipted(1, 1, now_);
  EXPECT_EQ(Pick(kMiB), 1);
}

TEST_F(LaneScheduleTest, ALaneIsFullUntilItsTransportIsDoneToo) {
  Lanes({1});
  Move(8 * kMiB);
  for (uint32_t i = 0; i < kQueuePackets; ++i) {
    ASSERT_EQ(Pick(kMiB), 0);
    schedule_->Sent(0, kMiB, now_);
  }
  schedule_->Receipted(0, kQueuePackets, now_);
  EXPECT_EQ(schedule_->under_way(0), kQueuePackets);
  EXPECT_EQ(Pick(kMiB), -1);
  schedule_->Returned(0, 1);
  EXPECT_EQ(Pick(kMiB), 0);
}

TEST_F(LaneScheduleTest, ALaneThatIsFastAgainIsUsedAgain) {
  Lanes({1, 1, 1, 100});
  Move(kGiB);
  EXPECT_LT(ShareOf(3), 0.02);
  wires_[3].ns_a_byte = 1;
  for (Wire& wire : wires_) wire.bytes = 0;
  Move(16 * kGiB);
  EXPECT_GT(ShareOf(3), 0.15);
}

TEST_F(LaneScheduleTest, AfterALullASlowLaneIsNotTriedFirst) {
  Lanes({10, 1, 1, 1});
  Move(kGiB);
  for (int burst = 0; burst < 8; ++burst) {
    wires_[0].bytes = 0;
    now_ += std::chrono::seconds(1);
    Move(4 * kMiB);
    EXPECT_EQ(wires_[0].bytes, 0U) << burst;
  }
}

// A target that stops reading, and receipts what it has not read.
TEST_F(LaneScheduleTest, ALaneThatGivesNothingBackIsNotWaitedFor) {
  Lanes({1, 30});
  Move(64 * kMiB);
  for (uint32_t i = 0; i < kQueuePackets; ++i) schedule_->Sent(0, kMiB, now_);
  EXPECT_EQ(Pick(kMiB), -1);
  schedule_->Receipted(0, kQueuePackets, now_);
  EXPECT_EQ(Pick(kMiB), 1);
}

TEST_F(LaneScheduleTest, ALaneThatGetsSlowIsLeftAlone) {
  Lanes({1, 1, 1, 1});
  Move(kGiB);
  wires_[3].ns_a_byte = 100;
  for (Wire& wire : wires_) wire.bytes = 0;
  Move(4 * kGiB);
  EXPECT_LT(ShareOf(3), 0.02);
}

// What is kept up to date beside what it is made of.
TEST(LaneScheduleRoomTest, IsWhatTheCountsSayWhateverHasHappened) {
  constexpr size_t kLanes = 4;
  struct Lane {
    bool up = true, proven = true, measured = false;
    uint64_t sent = 0, returned = 0, receipted = 0;
    std::vector<uint64_t> bytes;  // in flight, oldest first
  };
  std::mt19937_64 random(7);
  uint64_t with_room = 0;
  for (int run = 0; run < 200; ++run) {
    LaneSchedule schedule(kLanes, kQueuePackets);
    std::vector<Lane> lanes(kLanes);
    Duration now{1};
    const auto has_room = [&](const Lane& lane, uint64_t bytes) {
      const uint64_t under_way = lane.sent - std::min(lane.returned, lane.receipted);
      const uint64_t in_flight = std::accumulate(lane.bytes.begin(), lane.bytes.end(), uint64_t{0});
      if (!lane.up || under_way >= (lane.proven ? kQueuePackets : 1)) return false;
      return lane.measured || under_way < 2 ||
             in_flight + bytes <= LaneSchedule::kUnmeasuredBytesMax;
    };
    for (int step = 0; step < 300; ++step) {
      now += Duration(static_cast<int64_t>(random() % 1'000'000));
      const size_t at = random() % kLanes;
      Lane& lane = lanes[at];
      switch (random() % 8) {
        case 0:
          if (lane.up) {
            schedule.Down(at);
            lane.up = false;
          } else {
            schedule.Up(at);
            lane = Lane();
            lane.proven = false;
          }
          break;
        case 1:
        case 2:
          if (lane.returned == lane.sent) break;
          schedule.Returned(at, 1);
          ++lane.returned;
          break;
        case 3:
        case 4: {
          if (lane.bytes.empty() || !lane.up) break;
          const uint64_t packets = 1 + random() % lane.bytes.size();
          schedule.Receipted(at, packets, now);
          lane.receipted += packets;
          lane.bytes.erase(lane.bytes.begin(), lane.bytes.begin() + static_cast<int64_t>(packets));
          lane.proven = lane.measured = true;
          break;
        }
        default: {
          const uint64_t bytes = 1 + random() % kMiB;
          const int picked = schedule.Pick(bytes, now, random() % 2 == 0);
          if (picked < 0) break;
          Lane& taken = lanes.at(static_cast<size_t>(picked));
          ASSERT_TRUE(has_room(taken, bytes)) << run << " " << step;
          schedule.Sent(static_cast<size_t>(picked), bytes, now);
          ++taken.sent;
          taken.bytes.push_back(bytes);
        }
      }
      for (const uint64_t bytes : {uint64_t{0}, random() % kMiB, 2 * kMiB, 2 * kMiB + 1}) {
        const bool room = std::any_of(lanes.begin(), lanes.end(),
                                      [&](const Lane& each) { return has_room(each, bytes); });
        ASSERT_EQ(schedule.HasRoom(bytes), room) << run << " " << step << " " << bytes;
        with_room += room ? 1 : 0;
      }
    }
  }
  EXPECT_GT(with_room, 10'000U);
  EXPECT_LT(with_room, 230'000U);
}

}  // namespace
}  // namespace godwit
