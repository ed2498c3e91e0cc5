// Goal: a stranger who opens connections as fast as it can does not keep a real source out, before
// its session begins or while it does; what the strangers cost is bounded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "tests/engine/flood.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

// A sanitizer's build shows the same with less.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kConnects = 1'000;
#else
constexpr size_t kConnects = 10'000;
#endif
constexpr size_t kHeld = 1'000;

struct Stranger {
  const char* name;
  std::string says;
  size_t held;
  bool tls;
};

class FloodTest : public testing::TestWithParam<Stranger> {
 protected:
  void SetUp() override {
    if (!GetParam().tls) return;
    trust_.psk_file = absl::StrCat(testing::TempDir(), "/godwit-flood-psk-", ::getpid());
    std::ofstream(trust_.psk_file)
        << "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    ASSERT_EQ(::chmod(trust_.psk_file.c_str(), 0600), 0);
  }
  void TearDown() override {
    if (GetParam().tls) ::unlink(trust_.psk_file.c_str());
  }

  TrustOptions trust_;
};

TEST_P(FloodTest, TheSourceGetsThrough) {
  const Watchdog watchdog(GetParam().name, std::chrono::seconds(100));
  const std::vector<std::string> specs = {"soft:size=1MiB,seed=7"};
  const Devices devices(specs, DeviceRole::kTarget);
  const Devices own(specs, DeviceRole::kSource);
  TargetOptions options = RunningTarget::DefaultOptions();
  options.trust = trust_;
  RunningTarget target(devices.pointers(), options);
  Flood flood(target.Port(), GetParam().says, GetParam().held);
  flood.AwaitConnects(kConnects / 2);

  RecordingObserver observer;
  SourceOptions source_options = SourceOptionsFor(target.Port());
  source_options.trust = trust_;
  source_options.lanes = 8;
  SourceSession source(source_options, own.pointers(), observer);
  // The session waits for its second half.
  observer.on_phase = [&](SessionPhase phase) {
    if (phase == SessionPhase::kConnecting) flood.AwaitConnects(kConnects);
  };
  const SessionReport report = source.Run();
  EXPECT_TRUE(report.status.ok()) << report.status;
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
  EXPECT_GE(flood.connects(), kConnects);
  own.ExpectAllIn(DeviceState::kStop);
  devices.ExpectAllIn(DeviceState::kRunning);
}

const std::string kTlsPreface = std::string("GODWIT\2\1", 8);
const std::string kLaneOfTheirs = "GODWITLNfedcba9876543210" + std::string(4, '\0');

INSTANTIATE_TEST_SUITE_P(Every, FloodTest,
                         testing::Values(Stranger{"SilentAndLeave", "", 0, false},
                                         Stranger{"SilentAndStay", "", kHeld, false},
                                         Stranger{"GarbageAndStay", "GET / HTTP/1.1\r\n\r\n", kHeld,
                                                  false},
                                         Stranger{"LanesAndStay", kLaneOfTheirs, kHeld, false},
                                         Stranger{"GreetersAndStay", kRawPreface, kHeld, false},
                                         Stranger{"GreetersAndLeave", kRawPreface, 0, false},
                                         Stranger{"SilentAndStayInTls", "", kHeld, true},
                                         Stranger{"LanesAndStayInTls", kLaneOfTheirs, kHeld, true},
                                         Stranger{"GreetersAndStayInTls", kTlsPreface, kHeld, true},
                                         Stranger{"GreetersAndLeaveInTls", kTlsPreface, 0, true}),
                         [](const auto& stranger) { return std::string(stranger.param.name); });

}  // namespace
}  // namespace godwit
