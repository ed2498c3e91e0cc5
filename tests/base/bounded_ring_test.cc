// Goal: first in, first out, and never more than the bound.
#include "base/bounded_ring.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace godwit {
namespace {

TEST(BoundedRingTest, RefusesTheElementPastItsBoundAndLeavesItWithTheCaller) {
  BoundedRing<std::unique_ptr<int>> ring(2);
  EXPECT_TRUE(ring.TryPush(std::make_unique<int>(1)));
  EXPECT_TRUE(ring.TryPush(std::make_unique<int>(2)));
  auto third = std::make_unique<int>(3);
  EXPECT_FALSE(ring.TryPush(std::move(third)));
  ASSERT_NE(third, nullptr);  // NOLINT(bugprone-use-after-move): a refused push must not move
  std::unique_ptr<int> out;
  EXPECT_TRUE(ring.TryPop(out));
  EXPECT_EQ(*out, 1);
  EXPECT_TRUE(ring.TryPush(std::move(third)));
}

TEST(BoundedRingTest, KeepsOrderBetweenTwoThreads) {
  BoundedRing<int> ring(8);
  constexpr int kCount = 100000;
  std::thread producer([&] {
    for (int i = 0; i < kCount;) {
      int value = i;
      if (ring.TryPush(std::move(value))) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  for (int expected = 0; expected < kCount;) {
    int value = -1;
    if (ring.TryPop(value)) {
      ASSERT_EQ(value, expected);
      ++expected;
    } else {
      std::this_thread::yield();
    }
  }
  producer.join();
  int value = 0;
  EXPECT_FALSE(ring.TryPop(value));
}

}  // namespace
}  // namespace godwit
