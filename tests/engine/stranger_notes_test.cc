// Goal: whoever floods a port is told of in few lines, and none goes uncounted.
#include "engine/stranger_notes.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace godwit {
namespace {

class StrangerNotesTest : public testing::Test {
 protected:
  void Tell(int64_t lines) {
    for (int64_t i = 0; i < lines; ++i) notes_.Tell("a stranger");
  }

  ManualClock clock_;
  std::vector<std::string> told_;
  StrangerNotes notes_{[this](const std::string& line) { told_.push_back(line); }, clock_};
};

TEST_F(StrangerNotesTest, AFewAreAllTold) {
  Tell(StrangerNotes::kLinesAtOnce);
  notes_.TellCount();
  EXPECT_EQ(told_, std::vector<std::string>(StrangerNotes::kLinesAtOnce, "a stranger"));
}

TEST_F(StrangerNotesTest, ThoseThatAreTooManyAreCounted) {
  Tell(StrangerNotes::kLinesAtOnce + 10'000);
  EXPECT_EQ(told_.size(), StrangerNotes::kLinesAtOnce);
  notes_.TellCount();
  notes_.TellCount();
  ASSERT_EQ(told_.size(), StrangerNotes::kLinesAtOnce + 1);
  EXPECT_EQ(told_.back(), "turned away 10000 more, too many to name");
}

TEST_F(StrangerNotesTest, OneIsToldForEachStepOfTime) {
  Tell(StrangerNotes::kLinesAtOnce + 5);
  told_.clear();
  clock_.Advance(2 * StrangerNotes::kLineEvery);
  Tell(7);
  EXPECT_EQ(told_, (std::vector<std::string>{"turned away 5 more, too many to name", "a stranger",
                                             "a stranger"}));
  told_.clear();
  notes_.TellCount();
  EXPECT_EQ(told_, std::vector<std::string>{"turned away 5 more, too many to name"});
}

TEST_F(StrangerNotesTest, AQuietNightAllowsNoMoreThanTheFirstHour) {
  clock_.Advance(std::chrono::hours(8));
  Tell(2 * StrangerNotes::kLinesAtOnce);
  EXPECT_EQ(told_.size(), StrangerNotes::kLinesAtOnce);
}

}  // namespace
}  // namespace godwit
