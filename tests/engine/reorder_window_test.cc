// Goal: whatever order packets arrive in, they leave in index order; and no index that a peer can
// send makes the window hold more than its bound, lose a packet or give one twice.
#include "engine/reorder_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "tests/engine/packets.h"

namespace godwit {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

constexpr uint32_t kWindowPackets = 6;

class ReorderWindowTest : public testing::Test {
 protected:
  void SetUp() override {
    auto arena = Arena::Create(2 * kWindowPackets, 64);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    Restart(kWindowPackets);
  }
  void TearDown() override {
    window_.reset();
    EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
  }
  void Restart(uint32_t window_packets) {
    window_ = std::make_unique<ReorderWindow>(window_packets);
  }

  // Packet i carries one byte, 'a' + i % 26.
  Packet Make(uint32_t index, bool config) {
    wire::Frame frame;
    frame.index = index;
    frame.flags = config ? 1 : 0;
    frame.payload = std::string(1, static_cast<char>('a' + index % 26));
    return PacketOf(frame, *arena_);
  }
  absl::Status Insert(uint32_t index, bool config = false) {
    return window_->Insert(Make(index, config));
  }
  StatusCode Arrive(uint32_t index) { return Insert(index).code(); }
  StatusCode ArriveConfig(uint32_t index) { return Insert(index, true).code(); }

  // The next packet's byte; loaded at once unless told otherwise. REQUIRES: it is there.
  std::string Take() {
    const std::optional<Packet> packet = window_->WaitNext();
    return packet.has_value() ? PayloadOf(*packet) : "";
  }
  std::string TakeAndLoad(size_t packets) {
    std::string bytes;
    for (size_t i = 0; i < packets; ++i) {
      bytes += Take();
      window_->MarkLoaded();
    }
    return bytes;
  }
  size_t Held() const { return arena_->buffer_count() - arena_->free_count(); }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<ReorderWindow> window_;
};

TEST_F(ReorderWindowTest, DeliversInStreamOrderForEveryArrivalOrder) {
  std::array<uint32_t, kWindowPackets> arrival = {0, 1, 2, 3, 4, 5};
  do {  // all 720 orders: exhaustive, so no seed and no luck
    Restart(kWindowPackets);
    uint32_t lowest_missing = 0;
    uint64_t out_of_order = 0;
    std::array<bool, kWindowPackets> here{};
    for (const uint32_t index : arrival) {
      const bool config = index == kWindowPackets - 1;
      if (config && lowest_missing + 1 < kWindowPackets) {
        EXPECT_FALSE(window_->complete());
      }
      ASSERT_TRUE(Insert(index, config).ok());
      out_of_order += index != lowest_missing ? 1 : 0;
      here[index] = true;
      while (lowest_missing < kWindowPackets && here[lowest_missing]) ++lowest_missing;
      ASSERT_EQ(window_->complete(), lowest_missing == kWindowPackets);
    }
    ASSERT_EQ(window_->out_of_order_packets(), out_of_order);
    ASSERT_EQ(window_->depth_high_water(), kWindowPackets);
    ASSERT_EQ(TakeAndLoad(kWindowPackets), "abcdef");
    ASSERT_EQ(window_->loaded_packets(), kWindowPackets);
    ASSERT_TRUE(window_->complete());
  } while (std::next_permutation(arrival.begin(), arrival.end()));
}

TEST_F(ReorderWindowTest, RefusesTheFirstIndexPastTheWindow) {
  const absl::Status refused = Insert(kWindowPackets);
  EXPECT_EQ(refused.code(), StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("index 6"));
  EXPECT_EQ(Arrive(kWindowPackets - 1), StatusCode::kOk);
  EXPECT_EQ(window_->depth_high_water(), 1U);  // a refused packet leaves no trace
  EXPECT_EQ(Held(), 1U);
}

TEST_F(ReorderWindowTest, TheWindowMovesWithWhatIsLoadedNotWithWhatIsTaken) {
  for (uint32_t i = 0; i < kWindowPackets; ++i) ASSERT_EQ(Arrive(i), StatusCode::kOk);
  EXPECT_EQ(Take(), "a");
  EXPECT_EQ(Arrive(kWindowPackets), StatusCode::kOutOfRange);
  EXPECT_TRUE(window_->MarkLoaded());
  EXPECT_EQ(Arrive(kWindowPackets), StatusCode::kOk);
  EXPECT_EQ(Arrive(kWindowPackets + 1), StatusCode::kOutOfRange);
}

TEST_F(ReorderWindowTest, RefusesIndexesNearTheEndOfTheirSpace) {
  for (const uint32_t index : {0xffffffffU, 0xfffffffeU, 0xfffffffaU, 0x80000000U, 0x7fffffffU}) {
    EXPECT_EQ(Arrive(index), StatusCode::kOutOfRange) << index;
    EXPECT_EQ(ArriveConfig(index), StatusCode::kOutOfRange) << index;
  }
  EXPECT_EQ(Held(), 0U);
  EXPECT_EQ(Arrive(0), StatusCode::kOk);  // no trace
}

TEST_F(ReorderWindowTest, RefusesADuplicateThatWaits) {
  ASSERT_EQ(Arrive(3), StatusCode::kOk);
  const absl::Status refused = Insert(3);
  EXPECT_EQ(refused.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("index 3"));
  EXPECT_EQ(Held(), 1U);
}

TEST_F(ReorderWindowTest, RefusesADuplicateThatIsBeingLoaded) {
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  ASSERT_EQ(Take(), "a");
  EXPECT_EQ(Arrive(0), StatusCode::kAlreadyExists);
  EXPECT_FALSE(window_->MarkLoaded());
}

TEST_F(ReorderWindowTest, RefusesADuplicateThatIsLoaded) {
  for (uint32_t i = 0; i < 3; ++i) ASSERT_EQ(Arrive(i), StatusCode::kOk);
  ASSERT_EQ(TakeAndLoad(3), "abc");
  for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(Arrive(i), StatusCode::kAlreadyExists);
  EXPECT_EQ(Arrive(3), StatusCode::kOk);
}

TEST_F(ReorderWindowTest, ARefusedPacketStaysWithTheCaller) {
  Packet packet = Make(kWindowPackets, false);
  EXPECT_FALSE(window_->Insert(std::move(packet)).ok());
  EXPECT_TRUE(packet.buffer);  // NOLINT(bugprone-use-after-move): that is what is promised
  EXPECT_EQ(PayloadOf(packet), "g");
}

TEST_F(ReorderWindowTest, NothingComesAfterTheConfigPacket) {
  ASSERT_EQ(ArriveConfig(2), StatusCode::kOk);
  EXPECT_EQ(Arrive(3), StatusCode::kOutOfRange);
  EXPECT_EQ(ArriveConfig(3), StatusCode::kOutOfRange);
  EXPECT_EQ(ArriveConfig(1), StatusCode::kOutOfRange);  // a second one
  EXPECT_EQ(Arrive(2), StatusCode::kAlreadyExists);
  EXPECT_EQ(Arrive(1), StatusCode::kOk);
  EXPECT_FALSE(window_->complete());
  EXPECT_EQ(Arrive(0), StatusCode::kOk);
  EXPECT_TRUE(window_->complete());
  EXPECT_EQ(TakeAndLoad(3), "abc");
  EXPECT_EQ(Arrive(3), StatusCode::kOutOfRange);
  EXPECT_EQ(ArriveConfig(3), StatusCode::kOutOfRange);
}

TEST_F(ReorderWindowTest, TheConfigPacketMayNotStandBeforeOneThatHasCome) {
  ASSERT_EQ(Arrive(4), StatusCode::kOk);
  EXPECT_EQ(ArriveConfig(3), StatusCode::kOutOfRange);
  EXPECT_EQ(Arrive(3), StatusCode::kOk);  // no trace: not taken for the config packet
  EXPECT_EQ(ArriveConfig(5), StatusCode::kOk);
}

TEST_F(ReorderWindowTest, SaysWhetherTheNextIsThere) {
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  ASSERT_EQ(Arrive(1), StatusCode::kOk);
  ASSERT_EQ(Arrive(3), StatusCode::kOk);
  EXPECT_EQ(Take(), "a");
  EXPECT_TRUE(window_->MarkLoaded());
  EXPECT_EQ(Take(), "b");
  EXPECT_FALSE(window_->MarkLoaded());  // 2 is missing
}

TEST_F(ReorderWindowTest, AWindowOfOneTakesOneAtATime) {
  Restart(1);
  for (uint32_t i = 0; i < 5; ++i) {
    ASSERT_EQ(Arrive(i), StatusCode::kOk);
    ASSERT_EQ(Arrive(i + 1), StatusCode::kOutOfRange);
    ASSERT_EQ(Take().size(), 1U);
    ASSERT_EQ(Arrive(i + 1), StatusCode::kOutOfRange);
    ASSERT_FALSE(window_->MarkLoaded());
  }
}

// Any sequence of indexes, ten thousand of them, mostly near the window: against a model that is
// too simple to be wrong.
TEST_F(ReorderWindowTest, HoldsItsBoundAgainstAnyArrivals) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  std::vector<bool> come(20'000);
  uint32_t loaded = 0;
  for (int round = 0; round < 10'000; ++round) {
    if (random() % 3 == 0 && come[loaded]) {
      ASSERT_EQ(Take(), std::string(1, static_cast<char>('a' + loaded % 26)));
      ++loaded;
      ASSERT_EQ(window_->MarkLoaded(), come[loaded]);
      continue;
    }
    const uint32_t index =
        loaded - std::min(loaded, 2U) + static_cast<uint32_t>(random() % (kWindowPackets + 4));
    const StatusCode expected = index >= loaded + kWindowPackets ? StatusCode::kOutOfRange
                                : come[index]                    ? StatusCode::kAlreadyExists
                                                                 : StatusCode::kOk;
    ASSERT_EQ(Arrive(index), expected) << "index " << index << ", loaded " << loaded;
    come[index] = come[index] || expected == StatusCode::kOk;
    ASSERT_LE(Held(), kWindowPackets);
    ASSERT_EQ(window_->loaded_packets(), loaded);
  }
  EXPECT_LE(window_->depth_high_water(), kWindowPackets);
  EXPECT_GT(loaded, 100U);
}

TEST_F(ReorderWindowTest, AWaitingLoaderWakesForTheNextPacketOnly) {
  std::atomic<bool> woken{false};
  std::string got;
  std::thread loader([&] {
    got = Take();
    woken = true;
  });
  ASSERT_EQ(Arrive(1), StatusCode::kOk);
  EXPECT_FALSE(woken);  // whatever the time: 0 has not come
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  loader.join();
  EXPECT_EQ(got, "a");
}

TEST_F(ReorderWindowTest, StopWakesAWaitingLoaderAndStaysStopped) {
  std::thread loader([&] { EXPECT_FALSE(window_->WaitNext().has_value()); });
  window_->Stop();
  loader.join();
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  EXPECT_FALSE(window_->WaitNext().has_value());
  EXPECT_EQ(window_->loaded_packets(), 0U);
}

TEST_F(ReorderWindowTest, TheWorkerTakesDataInOrderAndNeverTheConfigPacket) {
  window_->LetInserterLoad();
  ASSERT_EQ(Arrive(1), StatusCode::kOk);
  EXPECT_FALSE(window_->TakeData().has_value());  // 0 has not come
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  ASSERT_EQ(ArriveConfig(2), StatusCode::kOk);
  for (const char* const payload : {"a", "b"}) {
    const std::optional<Packet> packet = window_->TakeData();
    ASSERT_TRUE(packet.has_value());
    EXPECT_EQ(PayloadOf(*packet), payload);
    EXPECT_FALSE(window_->TakeData().has_value());  // one at a time
    EXPECT_TRUE(window_->MarkLoaded());             // the next is there
  }
  EXPECT_FALSE(window_->TakeData().has_value());
  EXPECT_EQ(TakeAndLoad(1), "c");
}

TEST_F(ReorderWindowTest, NeverGivesThePacketAfterOneThatIsOut) {
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  ASSERT_EQ(Arrive(1), StatusCode::kOk);
  EXPECT_EQ(Take(), "a");
  EXPECT_FALSE(window_->TakeData().has_value());  // the loader has one

  window_->MarkLoaded();
  std::optional<Packet> packet = window_->TakeData();
  ASSERT_TRUE(packet.has_value());
  ASSERT_EQ(Arrive(2), StatusCode::kOk);
  std::atomic<bool> loaded{false};
  std::string got;
  std::thread loader([&] {
    got = Take();
    EXPECT_TRUE(loaded);  // whatever the time: the worker has one
  });
  window_->WakeLoader();
  packet.reset();
  loaded = true;
  window_->MarkLoaded();
  window_->WakeLoader();
  loader.join();
  EXPECT_EQ(got, "c");
}

TEST_F(ReorderWindowTest, WhatTheWorkerPutsBackIsTheLoadersNext) {
  window_->LetInserterLoad();
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  std::optional<Packet> packet = window_->TakeData();
  ASSERT_TRUE(packet.has_value());
  std::string got;
  std::thread loader([&] { got = TakeAndLoad(2); });
  ASSERT_EQ(Arrive(1), StatusCode::kOk);
  window_->PutBack(*std::move(packet));
  loader.join();
  EXPECT_EQ(got, "ab");
  EXPECT_EQ(window_->loaded_packets(), 2U);
}

TEST_F(ReorderWindowTest, AStoppedLoaderLeavesOnlyWhenTheWorkerHasNoPacketOut) {
  ASSERT_EQ(Arrive(0), StatusCode::kOk);
  std::optional<Packet> packet = window_->TakeData();
  ASSERT_TRUE(packet.has_value());
  window_->Stop();
  std::atomic<bool> loaded{false};
  std::thread loader([&] {
    EXPECT_FALSE(window_->WaitNext().has_value());
    EXPECT_TRUE(loaded);
  });
  packet.reset();
  loaded = true;
  window_->MarkLoaded();
  loader.join();
  EXPECT_FALSE(window_->TakeData().has_value());
}

TEST_F(ReorderWindowTest, OneThreadInsertsWhileAnotherLoads) {
  constexpr uint32_t kPackets = 20'000;
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::string got;
  std::thread loader([&] {
    for (uint32_t i = 0; i < kPackets; ++i) got += TakeAndLoad(1);
  });
  // As the wire does: any order within what the window allows.
  std::mt19937 random(seed);
  for (uint32_t base = 0; base < kPackets; base += kWindowPackets / 2) {
    std::array<uint32_t, kWindowPackets / 2> next;
    std::iota(next.begin(), next.end(), base);
    std::shuffle(next.begin(), next.end(), random);
    for (const uint32_t index : next) {
      if (index >= kPackets) continue;
      while (index >= window_->loaded_packets() + kWindowPackets) std::this_thread::yield();
      ASSERT_EQ(Arrive(index), StatusCode::kOk);
    }
  }
  loader.join();
  ASSERT_EQ(got.size(), kPackets);
  for (uint32_t i = 0; i < kPackets; ++i) ASSERT_EQ(got[i], static_cast<char>('a' + i % 26));
}

}  // namespace
}  // namespace godwit
