// Goal: a device that stands still costs nobody else anything: not their streams, and not more
// memory than the budget says; and when it goes on, so does the session.
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/engine/gate_device.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// A source and a target with the given devices, the source on a thread of its own.
class World {
 public:
  World(std::vector<Device*> source, std::vector<Device*> target, SourceOptions source_options,
        TargetOptions target_options)
      : target_(std::move(target), std::move(target_options)) {
    source_options.to = absl::StrCat("127.0.0.1:", target_.Port());
    source_.emplace(std::move(source_options), std::move(source), observer_);
    source_->Start([this](const SessionReport& report) { report_.set_value(report); });
  }
  ~World() { source_.reset(); }

  SourceSession& source() { return *source_; }
  TargetSession& target() { return target_.session(); }
  // Polls until `done` says so.
  template <typename Done>
  void WaitUntil(const Done& done) {
    while (!done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  uint64_t Loaded(size_t device) {
    const SessionStatistics statistics = target().statistics();
    return device < statistics.devices.size() ? statistics.devices[device].bytes : 0;
  }
  void ExpectDone() {
    const SessionReport source = report_.get_future().get();
    EXPECT_EQ(source.outcome, SessionOutcome::kDone) << source.status;
    EXPECT_EQ(target_.Report().outcome, SessionOutcome::kDone) << target_.Report().status;
  }

 private:
  const Watchdog watchdog_{"a stall", std::chrono::seconds(120)};
  RecordingObserver observer_;
  RunningTarget target_;
  std::optional<SourceSession> source_;
  std::promise<SessionReport> report_;
};

SourceOptions Source(size_t packet_bytes, uint32_t lanes) {
  SourceOptions options = SourceOptionsFor(1);
  options.packet_bytes = packet_bytes;
  options.lanes = lanes;
  return options;
}

TEST(StallTest, OneDeviceThatStandsHoldsBackNoOthersStream) {
  const std::vector<std::string> specs = {absl::StrCat("soft:size=", 64 * kMiB, ",seed=1"),
                                          absl::StrCat("soft:size=", 64 * kMiB, ",seed=2"),
                                          absl::StrCat("soft:size=", 64 * kMiB, ",seed=3")};
  const Devices source(specs, DeviceRole::kSource);
  GateDevice shut(/*open=*/false);
  const Devices others({specs[1], specs[2]}, DeviceRole::kTarget);
  TargetOptions target_options = RunningTarget::DefaultOptions();
  target_options.arena_bytes = 8 * kMiB;
  World world(source.pointers(), {&shut, others.pointers()[0], others.pointers()[1]},
              Source(64 * 1024, 2), target_options);
  // The streams of the others come to their ends, many times what any buffer holds.
  world.WaitUntil([&] { return world.Loaded(1) == 64 * kMiB && world.Loaded(2) == 64 * kMiB; });
  EXPECT_EQ(shut.taken_bytes(), 0U);
  EXPECT_LT(world.Loaded(0), 8 * kMiB);
  // The source has read no more of the one that stands than its window and its own buffers.
  EXPECT_LT(world.source().statistics().devices[0].read_bytes, 16 * kMiB);
  shut.Open();
  world.ExpectDone();
  EXPECT_EQ(shut.taken_bytes(), 64 * kMiB);
}

// What this process has resident, in bytes.
uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * 4096;
}

struct Shape {
  uint32_t devices;
  uint32_t lanes;
  size_t arena_bytes;  // 0: the smallest legal one
};

class MemoryTest : public testing::TestWithParam<Shape> {};

constexpr uint64_t kStateBytes = 512 * kMiB;  // of all devices: twice what any budget below allows

// Both sides in this process, every loader shut, far more state than memory.
TEST_P(MemoryTest, StaysWithinTheBudgetWhileEveryLoaderStands) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "most of what is resident is the sanitizer's own";
#endif
  const Shape shape = GetParam();
  constexpr size_t kPacketBytes = 16 * 1024;
  std::vector<std::string> specs;
  std::vector<std::unique_ptr<GateDevice>> gates;
  std::vector<Device*> target;
  for (uint32_t i = 0; i < shape.devices; ++i) {
    specs.push_back(absl::StrCat("soft:size=", kStateBytes / shape.devices, ",seed=", i));
    gates.push_back(std::make_unique<GateDevice>(false));
    target.push_back(gates.back().get());
  }
  const Devices source(specs, DeviceRole::kSource);
  TargetOptions target_options = RunningTarget::DefaultOptions();
  target_options.arena_bytes = shape.arena_bytes;
  SourceOptions source_options = Source(kPacketBytes, shape.lanes);
  source_options.arena_bytes = shape.arena_bytes;
  const uint64_t before = ResidentBytes();
  World world(source.pointers(), target, source_options, target_options);
  // Until nothing moves any more: every pipe, window, lane and buffer is full.
  uint64_t last = 1;
  uint64_t sent = 0;
  for (int still = 0; still < 5;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    sent = 0;
    for (const DeviceStatistics& device : world.source().statistics().devices) {
      sent += device.read_bytes;
    }
    still = sent == last ? still + 1 : 0;
    last = sent;
  }
  EXPECT_GT(sent, 0U);
  EXPECT_LT(sent, kStateBytes / 2);
  // Both arenas (at most twice what docs/buffer-budget.md has as the least), a pipe's worth and a
  // piece of content a device, and stacks and heap.
  const uint64_t packets_min = shape.devices * (4 + 3) + shape.lanes * (2 + 1);
  const uint64_t arenas = 2 * std::max<uint64_t>(shape.arena_bytes, packets_min * (80 * 1024));
  const uint64_t budget = arenas + shape.devices * (2 * kMiB) + 64 * kMiB;
  ASSERT_LT(budget, kStateBytes);
  EXPECT_LT(ResidentBytes() - std::min(before, ResidentBytes()), budget);
  for (const auto& gate : gates) gate->Open();
  world.ExpectDone();
  for (const auto& gate : gates) {
    EXPECT_EQ(gate->taken_bytes(), kStateBytes / shape.devices);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, MemoryTest,
                         testing::Values(Shape{1, 1, 0}, Shape{1, 16, 4 * kMiB}, Shape{64, 16, 0},
                                         Shape{64, 16, 16 * kMiB}),
                         [](const auto& shape) {
                           return absl::StrCat(shape.param.devices, "Devices", shape.param.lanes,
                                               "Lanes", shape.param.arena_bytes / kMiB, "MiB");
                         });

}  // namespace
}  // namespace godwit
