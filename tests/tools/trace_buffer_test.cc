#include "tools/trace_buffer.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

namespace godwit {
namespace {

TraceSpan Span(TraceSpan::Track track, uint32_t index) {
  TraceSpan span;
  span.track = track;
  span.name = "send";
  span.index = index;
  return span;
}

TEST(TraceBuffer, KeepsTheFirstSpansAndCountsTheRest) {
  TraceBuffer buffer(1, 3);
  for (uint32_t i = 0; i < 5; ++i) buffer.OnSpan(Span(TraceSpan::Track::kLane, i));
  ASSERT_EQ(buffer.packet_spans().size(), 3U);
  EXPECT_EQ(buffer.packet_spans()[2].index, 2U);
  EXPECT_EQ(buffer.dropped(), 2U);
}

TEST(TraceBuffer, HasRoomForPhasesWhenPacketsHaveFilledTheirs) {
  TraceBuffer buffer(2, 1);
  for (uint32_t i = 0; i < 9; ++i) buffer.OnSpan(Span(TraceSpan::Track::kLoader, i));
  buffer.OnSpan(Span(TraceSpan::Track::kControl, 0));
  buffer.OnSpan(Span(TraceSpan::Track::kDevice, 0));
  EXPECT_EQ(buffer.steps().size(), 2U);
}

TEST(TraceBuffer, CutsALongNameAndKeepsNoPointerToIt) {
  TraceBuffer buffer(1, 1);
  std::string name = "a name of more than fifteen bytes";
  TraceSpan span = Span(TraceSpan::Track::kLane, 0);
  span.name = name;
  buffer.OnSpan(span);
  name.assign(name.size(), 'x');
  EXPECT_EQ(buffer.packet_spans()[0].name_text(), "a name of more ");
}

TEST(TraceBuffer, LosesNothingBetweenThreads) {
  constexpr uint32_t kThreads = 4;
  constexpr uint32_t kSpans = 5000;
  TraceBuffer buffer(1, kThreads * kSpans - 100);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&buffer, t] {
      for (uint32_t i = 0; i < kSpans; ++i) {
        buffer.OnSpan(Span(TraceSpan::Track::kLane, t * kSpans + i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint32_t> seen;
  for (const StoredSpan& span : buffer.packet_spans()) seen.insert(span.index);
  EXPECT_EQ(seen.size(), kThreads * kSpans - 100);
  EXPECT_EQ(buffer.dropped(), 100U);
}

}  // namespace
}  // namespace godwit
