// Goal: of each device the last rounds are kept, oldest first, and never more than the bound.
#include "tools/precopy_history.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace godwit {
namespace {

PrecopyIteration Round(size_t device, uint64_t number) {
  PrecopyIteration iteration;
  iteration.device = device;
  iteration.number = number;
  iteration.bytes = 1000 * device + number;
  return iteration;
}

TEST(PrecopyHistoryTest, KeepsTheLastRoundsOldestFirstHoweverManyThereWere) {
  constexpr uint64_t kMax = PrecopyHistory::kIterationsMax;
  PrecopyHistory history;
  for (uint64_t rounds = 1; rounds <= 3 * kMax; ++rounds) {
    history.Add(Round(0, rounds));
    const std::vector<PrecopyIteration> last = history.Last(0);
    ASSERT_EQ(last.size(), std::min(rounds, kMax));
    for (size_t i = 0; i < last.size(); ++i) {
      ASSERT_EQ(last[i].number, rounds - last.size() + 1 + i) << "of " << rounds << " rounds";
    }
  }
}

TEST(PrecopyHistoryTest, KeepsEachDevicesOwnWhateverTheOrderTheyComeIn) {
  PrecopyHistory history;
  for (uint64_t number = 1; number <= PrecopyHistory::kIterationsMax + 1; ++number) {
    history.Add(Round(2, number));
    if (number <= 3) history.Add(Round(0, number));
  }
  EXPECT_EQ(history.Last(0).size(), 3U);
  EXPECT_EQ(history.Last(0).front().bytes, 1U);
  EXPECT_EQ(history.Last(2).size(), PrecopyHistory::kIterationsMax);
  EXPECT_EQ(history.Last(2).front().bytes, 2002U);
}

TEST(PrecopyHistoryTest, HasNothingOfADeviceThatWasNeverTold) {
  PrecopyHistory history;
  EXPECT_TRUE(history.Last(0).empty());
  history.Add(Round(1, 1));
  EXPECT_TRUE(history.Last(0).empty());  // before it
  EXPECT_TRUE(history.Last(2).empty());  // behind it
}

}  // namespace
}  // namespace godwit
