// Goal: whatever a session agrees on, its bounds are the wire format's, its arena holds all that
// the bounds promise, and it takes no more memory than was given to it or than the minimum needs.
#include "engine/buffer_budget.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/arena.h"
#include "base/units.h"
#include "engine/packet.h"

namespace godwit {
namespace {

constexpr uint32_t kLanes[] = {1, 2, 4, 16, 64};
constexpr size_t kPacketBytes[] = {1, 4096, kMiB, 8 * kMiB - 80};
constexpr size_t kArenaBytes[] = {0, 1, kMiB, 128 * kMiB, size_t{4} << 30};

TEST(BufferBudgetTest, ABufferHoldsAnyPacketOfTheSession) {
  for (const size_t packet_bytes : kPacketBytes) {
    EXPECT_GE(PayloadBytesMax(packet_bytes), packet_bytes);
    EXPECT_GE(PayloadBytesMax(packet_bytes), size_t{65'552});  // a config packet, at any size
  }
}

void CheckTarget(size_t arena_bytes, uint32_t devices, uint32_t lanes, size_t packet_bytes,
                 bool posted_ahead) {
  SCOPED_TRACE(absl::StrCat(arena_bytes, " B arena, ", devices, " devices, ", lanes, " lanes, ",
                            packet_bytes, " B packets, posted ahead ", posted_ahead));
  const TargetBudget budget = PlanTarget(arena_bytes, devices, lanes, packet_bytes, posted_ahead);
  ASSERT_GE(budget.window_packets, 4U);
  ASSERT_LE(budget.window_packets, 4096U);
  ASSERT_GE(budget.queue_packets, 4U);
  ASSERT_LE(budget.queue_packets, 256U);
  // Over RDMA a receive must wait for each frame that the source may send; TCP needs one for what
  // is coming in.
  ASSERT_EQ(budget.receive_packets, posted_ahead ? budget.queue_packets : 1U);

  const size_t promised =
      size_t{devices} * budget.window_packets + size_t{lanes} * budget.receive_packets;
  ASSERT_GE(budget.buffers, promised);
  const size_t minimum = size_t{devices} * 4 + size_t{lanes} * (posted_ahead ? 4 : 1);
  const size_t stride = Arena::StrideBytes(PayloadBytesMax(packet_bytes));
  ASSERT_LE(budget.buffers * stride, std::max(arena_bytes, minimum * stride));
}

TEST(BufferBudgetTest, TheTargetKeepsItsBoundsAndItsPromises) {
  for (const size_t arena_bytes : kArenaBytes) {
    for (uint32_t devices = 1; devices <= 64; ++devices) {
      for (const uint32_t lanes : kLanes) {
        for (const size_t packet_bytes : kPacketBytes) {
          for (const bool posted_ahead : {false, true}) {
            CheckTarget(arena_bytes, devices, lanes, packet_bytes, posted_ahead);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(BufferBudgetTest, TheLanesOfTheTargetTakeHalfAtMost) {
  for (const size_t packet_bytes : kPacketBytes) {
    for (const uint32_t lanes : kLanes) {
      const size_t arena_bytes = 128 * kMiB;
      const TargetBudget budget = PlanTarget(arena_bytes, 1, lanes, packet_bytes, true);
      if (budget.queue_packets == 4) continue;  // the minimum, whatever it costs
      const size_t stride = Arena::StrideBytes(PayloadBytesMax(packet_bytes));
      EXPECT_LE(lanes * budget.receive_packets * stride, arena_bytes / 2);
    }
  }
}

// Memory that is never used still costs its first touch.
TEST(BufferBudgetTest, AWindowIsNoLargerThanAFewTimesWhatTheLanesHaveUnderWay) {
  for (const uint32_t devices : {1U, 8U}) {
    EXPECT_EQ(PlanTarget(size_t{4} << 30, devices, 1, kMiB, false).window_packets, 16U);
    EXPECT_EQ(PlanTarget(size_t{4} << 30, devices, 4, kMiB, false).window_packets, 128U);
  }
  EXPECT_EQ(PlanTarget(128 * kMiB, 1, 4, kMiB, false).window_packets, 123U);  // not reached
}

TEST(BufferBudgetTest, APartOfAWindowIsAnEighthAndOfASmallOneUpToFourPackets) {
  EXPECT_EQ(WindowPart(4), 1U);
  EXPECT_EQ(WindowPart(8), 2U);
  EXPECT_EQ(WindowPart(16), 4U);
  EXPECT_EQ(WindowPart(32), 4U);
  EXPECT_EQ(WindowPart(119), 14U);
}

TEST(BufferBudgetTest, MoreMemoryMakesALargerWindow) {
  uint32_t before = 0;
  for (size_t arena_bytes = 0; arena_bytes <= 1024 * kMiB; arena_bytes += 64 * kMiB) {
    const uint32_t window = PlanTarget(arena_bytes, 2, 4, kMiB, false).window_packets;
    EXPECT_GE(window, before) << arena_bytes;
    before = window;
  }
}

TEST(BufferBudgetTest, TheSourceCanAlwaysReadAndSend) {
  for (uint32_t devices = 1; devices <= 64; ++devices) {
    for (const uint32_t lanes : kLanes) {
      for (const size_t packet_bytes : kPacketBytes) {
        for (const uint32_t queue_packets : {kQueuePacketsMin, 8U, 100U, kQueuePacketsMax}) {
          for (const size_t arena_bytes : kArenaBytes) {
            const SourceBudget budget =
                PlanSource(arena_bytes, devices, lanes, packet_bytes, queue_packets);
            ASSERT_GE(budget.chain_packets, 1U);
            ASSERT_LE(budget.chain_packets, kChainPacketsMax);
            const size_t readers = size_t{devices} * kSourceChains * budget.chain_packets;
            // Whatever the readers hold, every lane can go on.
            ASSERT_GE(budget.buffers, readers + lanes);
            ASSERT_LE(budget.buffers, readers + size_t{lanes} * queue_packets);
            // With so many more on their way the readers have all that they can hold.
            ASSERT_EQ(budget.unreceipted_packets, budget.buffers - readers);
            // Only the minimum may need more than was given.
            const size_t bytes = budget.buffers * Arena::StrideBytes(PayloadBytesMax(packet_bytes));
            ASSERT_TRUE(bytes <= arena_bytes || budget.buffers == readers + lanes);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace godwit
