// Goal: only a call that the stop met, or that came after it, counts as waited for.
#include "engine/blocked_call.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace godwit {
namespace {

constexpr std::chrono::milliseconds kAWhile{2};

TEST(BlockedCallTest, WhoIsInNoCallIsNotWaitedFor) {
  BlockedCall calls;
  EXPECT_EQ(calls.Around([] { return 7; }), 7);
  calls.StopAsked();
  std::this_thread::sleep_for(kAWhile);
  EXPECT_EQ(calls.so_far().count(), 0);
  EXPECT_EQ(calls.waited().count(), 0);
}

TEST(BlockedCallTest, TheCallThatTheStopMeetsIsWaitedForUntilItReturns) {
  BlockedCall calls;
  calls.Enter();
  std::this_thread::sleep_for(kAWhile);
  EXPECT_EQ(calls.so_far().count(), 0);  // nobody waits yet
  calls.StopAsked();
  std::this_thread::sleep_for(kAWhile);
  EXPECT_GE(calls.so_far(), kAWhile);
  EXPECT_EQ(calls.waited().count(), 0);  // it goes on
  calls.Return();
  EXPECT_EQ(calls.so_far().count(), 0);
  EXPECT_GE(calls.waited(), kAWhile);
}

TEST(BlockedCallTest, ASecondStopDoesNotBeginTheWaitAnew) {
  BlockedCall calls;
  calls.Enter();
  calls.StopAsked();
  std::this_thread::sleep_for(kAWhile);
  calls.StopAsked();
  EXPECT_GE(calls.so_far(), kAWhile);
}

}  // namespace
}  // namespace godwit
