// Goal: a buffer has exactly one owner, sits where the device and the NIC want it, and the arena
// never grows.
#include "base/arena.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "base/bounded_ring.h"

namespace godwit {
namespace {

std::unique_ptr<Arena> MakeArena(size_t buffers, size_t payload_bytes_max) {
  auto arena = Arena::Create(buffers, payload_bytes_max);
  EXPECT_TRUE(arena.ok()) << arena.status();
  return *std::move(arena);
}

TEST(ArenaTest, PayloadsArePageAlignedDisjointAndInsideTheMapping) {
  for (const size_t payload_bytes : {size_t{1}, size_t{4095}, size_t{4096}, size_t{5000}}) {
    const auto arena = MakeArena(7, payload_bytes);
    std::vector<Buffer> buffers;
    std::set<std::byte*> payloads;
    while (Buffer buffer = arena->TryAcquire()) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.payload()) % 4096, 0U);
      EXPECT_GE(buffer.header(kHeaderRoomBytes), arena->address());
      EXPECT_LE(buffer.payload() + payload_bytes, arena->address() + arena->size_bytes());
      EXPECT_EQ(buffer.payload_bytes_max(), payload_bytes);
      payloads.insert(buffer.payload());
      buffers.push_back(std::move(buffer));
    }
    EXPECT_EQ(payloads.size(), 7U);
    std::byte* previous = nullptr;
    for (std::byte* payload : payloads) {
      if (previous != nullptr) {
        EXPECT_GE(payload - kHeaderRoomBytes, previous + payload_bytes);
      }
      previous = payload;
    }
  }
}

TEST(ArenaTest, HearsACancelBetweenPiecesOfItsMemory) {
  int asked = 0;
  auto whole = Arena::Create(64, size_t{1} << 20, [&] { return ++asked, false; });
  ASSERT_TRUE(whole.ok()) << whole.status();
  // Of 4 MiB each.
  EXPECT_EQ(asked, static_cast<int>(((*whole)->size_bytes() + (4U << 20) - 1) / (4U << 20)));

  asked = 0;
  const auto cancelled = Arena::Create(64, size_t{1} << 20, [&] { return ++asked == 3; });
  EXPECT_EQ(cancelled.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST(ArenaTest, RefusesBeyondItsCountAndServesAgainAfterAReturn) {
  const auto arena = MakeArena(2, 4096);
  Buffer first = arena->TryAcquire();
  Buffer second = arena->TryAcquire();
  EXPECT_FALSE(arena->TryAcquire());
  std::byte* const payload = first.payload();
  first = Buffer();
  const Buffer third = arena->TryAcquire();
  EXPECT_EQ(third.payload(), payload);
}

TEST(ArenaTest, KnowsHowManyWereEverOutAtOnce) {
  const auto arena = MakeArena(4, 4096);
  EXPECT_EQ(arena->used_high_water(), 0U);
  {
    const Buffer first = arena->TryAcquire();
    const Buffer second = arena->TryAcquire();
    EXPECT_EQ(arena->used_high_water(), 2U);
  }
  const Buffer third = arena->TryAcquire();
  EXPECT_EQ(arena->used_high_water(), 2U);
}

TEST(ArenaTest, MovingAHandleMovesItsOwnership) {
  const auto arena = MakeArena(1, 4096);
  Buffer first = arena->TryAcquire();
  first.set_payload_bytes(17);
  Buffer second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): what a moved-from handle is, is tested
  EXPECT_EQ(second.payload_bytes(), 17U);
  EXPECT_EQ(arena->free_count(), 0U);
  second = Buffer();
  EXPECT_EQ(arena->free_count(), 1U);
}

TEST(ArenaTest, AFreshHandleHasNoBytesOfTheLastOwner) {
  const auto arena = MakeArena(1, 4096);
  {
    Buffer buffer = arena->TryAcquire();
    buffer.set_payload_bytes(99);
  }
  EXPECT_EQ(arena->TryAcquire().payload_bytes(), 0U);
}

TEST(ArenaTest, SaysWhatBacksIt) {
  const auto arena = MakeArena(1, 4096);
  EXPECT_THAT(std::string(arena->backing_name()),
              testing::AnyOf("hugepages", "transparent hugepages", "plain pages"));
}

TEST(ArenaTest, BuffersMayBeFreedByAnotherThread) {
  const auto arena = MakeArena(4, 4096);
  BoundedRing<Buffer> ring(4);
  std::thread consumer([&] {
    for (int got = 0; got < 10000;) {
      Buffer buffer;
      if (ring.TryPop(buffer)) {
        ++got;
      } else {
        std::this_thread::yield();
      }
    }
  });
  for (int sent = 0; sent < 10000;) {
    Buffer buffer = arena->TryAcquire();
    if (!buffer) {
      std::this_thread::yield();
      continue;
    }
    buffer.payload()[0] = std::byte{1};
    while (!ring.TryPush(std::move(buffer))) std::this_thread::yield();
    ++sent;
  }
  consumer.join();
  EXPECT_EQ(arena->free_count(), 4U);
}

TEST(ArenaDeathTest, RefusesToDieWhileABufferIsOut) {
  EXPECT_DEATH(
      {
        auto arena = MakeArena(1, 4096);
        const Buffer buffer = arena->TryAcquire();
        arena.reset();
      },
      "CHECK failed");
}

}  // namespace
}  // namespace godwit
