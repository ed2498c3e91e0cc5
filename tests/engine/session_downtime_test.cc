// Goal: the downtime that the report predicts is the one that comes, where devices' own slowness is
// what it is made of. What the threads and the network add is for bench/downtime to show.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "base/units.h"
#include "tests/engine/session_world.h"
#include "tests/engine/slow_device.h"

namespace godwit {
namespace {

using std::chrono::milliseconds;

struct Case {
  const char* name;
  std::string spec;
  size_t devices;
  SlowDevice::Speed source;
  SlowDevice::Speed target;
  std::chrono::nanoseconds config{0};
};

void PrintTo(const Case& shown, std::ostream* out) { *out << shown.name; }

std::vector<std::unique_ptr<SlowDevice>> Make(const Case& of, DeviceRole role) {
  std::vector<std::unique_ptr<SlowDevice>> devices;
  for (size_t i = 0; i < of.devices; ++i) {
    devices.push_back(
        std::make_unique<SlowDevice>(absl::StrCat(of.spec, ",seed=", i), role,
                                     role == DeviceRole::kSource ? of.source : of.target));
  }
  return devices;
}

std::vector<Device*> Pointers(const std::vector<std::unique_ptr<SlowDevice>>& owned) {
  std::vector<Device*> all;
  all.reserve(owned.size());
  for (const auto& device : owned) all.push_back(device.get());
  return all;
}

SessionReport Move(const Case& how) {
  const Watchdog watchdog("a session of slow devices", 6 * kSessionCap);
  const auto source = Make(how, DeviceRole::kSource);
  const auto target = Make(how, DeviceRole::kTarget);
  TargetOptions target_options = RunningTarget::DefaultOptions();
  target_options.vm.load_config = [&](size_t, absl::string_view) {
    std::this_thread::sleep_for(how.config / 2);
    return absl::OkStatus();
  };
  RunningTarget running(Pointers(target), target_options);
  SourceOptions options = SourceOptionsFor(running.Port());
  options.packet_bytes = 64 * kKiB;
  options.precopy_limits.downtime = std::chrono::seconds(5);
  options.expected_config = how.config;
  options.vm.save_config = [&](size_t) {
    std::this_thread::sleep_for(how.config / 2);
    return std::string("the VMM's");
  };
  RecordingObserver observer;
  SourceSession session(options, Pointers(source), observer);
  SessionReport report = session.Run();
  EXPECT_EQ(running.Report().outcome, SessionOutcome::kDone) << running.Report().status;
  return report;
}

class DowntimeTest : public testing::TestWithParam<Case> {};

// Whether the machine lets a thread run when it is time: what a busy one adds to steps, and to what
// is measured of them, is nothing that could be predicted.
class Calm {
 public:
  Calm() : thread_([this] { Watch(); }) {}
  ~Calm() { End(); }
  Calm(const Calm&) = delete;
  Calm& operator=(const Calm&) = delete;

  // No longer watching, of all the time this share at most was lost.
  bool Was() {
    End();
    return lost_ < 0.03 * (std::chrono::steady_clock::now() - began_);
  }

 private:
  void Watch() {
    constexpr milliseconds kNap{1};
    while (!over_) {
      const auto before = std::chrono::steady_clock::now();
      std::this_thread::sleep_for(kNap);
      const auto late = std::chrono::steady_clock::now() - before - kNap;
      if (late > kNap) lost_ += late;
    }
  }
  void End() {
    over_ = true;
    if (thread_.joinable()) thread_.join();
  }

  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::chrono::duration<double> lost_{0};
  std::atomic<bool> over_{false};
  std::thread thread_;  // last: it uses all of the above
};

TEST_P(DowntimeTest, IsPredictedWithinAFifth) {
  constexpr size_t kSessions = 3;
  constexpr int kTries = 12;
  std::vector<double> errors;
  const auto median = [&] {
    std::sort(errors.begin(), errors.end());
    return errors[errors.size() / 2];
  };
  // What was busy only while it counted shows up in a few sessions, a wrong formula in all.
  for (int tried = 0; tried < kTries && (errors.size() < kSessions || median() >= 0.2); ++tried) {
    Calm calm;
    const SessionReport report = Move(GetParam());
    const bool counts = calm.Was();
    ASSERT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
    ASSERT_TRUE(report.switchover.has_value());
    // The decision was made on an estimate of the same things.
    EXPECT_GT(report.switchover->decided_downtime.count(), 0);
    const auto predicted = static_cast<double>(report.switchover->predicted_downtime.count());
    const auto actual = static_cast<double>(report.downtime.count());
    if (counts) errors.push_back(std::abs(predicted - actual) / actual);
    std::printf("predicted %.0f ms, actual %.0f ms%s\n", predicted / 1e6, actual / 1e6,
                counts ? "" : "; does not count, the machine was busy");
  }
  if (errors.size() < kSessions) {
    GTEST_SKIP() << "the machine is too busy to predict anything: " << errors.size()
                 << " calm sessions of " << kTries;
  }
  EXPECT_LT(median(), 0.2);
}

constexpr milliseconds kSlow{60};
constexpr double kSlowLoad = 16.0 * kMiB;

INSTANTIATE_TEST_SUITE_P(
    All, DowntimeTest,
    testing::Values(
        Case{"SourceSteps", "soft:size=176,profile=hisi", 1, {kSlow, 1e12}, {{}, 1e12}},
        Case{"TargetSteps", "soft:size=176,profile=hisi", 1, {{}, 1e12}, {kSlow, 1e12}},
        Case{"StepsOfTwo", "soft:size=4KiB,profile=qat", 2, {kSlow, 1e12}, {kSlow, 1e12}},
        Case{"Config", "soft:size=176,profile=hisi", 1, {{}, 1e12}, {{}, 1e12}, 3 * kSlow},
        Case{"Load", "soft:size=2MiB,profile=virtio", 1, {{}, 1e12}, {{}, kSlowLoad}},
        Case{
            "StepsAndLoad", "soft:size=2MiB,profile=virtio", 2, {kSlow, 1e12}, {kSlow, kSlowLoad}}),
    [](const auto& given) { return std::string(given.param.name); });

}  // namespace
}  // namespace godwit
