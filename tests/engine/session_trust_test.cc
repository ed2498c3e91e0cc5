// Goal: whole sessions inside TLS, sealed and not; what one side wants and the other does not is
// told to both, and costs nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "engine/session_base.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/raw_target.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::HasSubstr;

class SessionTrustTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(testing::TempDir(), "/godwit-psk-", ::getpid());
    std::ofstream(path_) << "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
  }
  void TearDown() override { ::unlink(path_.c_str()); }

  struct Ends {
    SessionReport source;
    SessionReport target;
  };
  Ends Move(SealMode source_seal, SealMode target_seal) {
    const Watchdog watchdog("a session inside TLS");
    const std::vector<std::string> specs = {"soft:size=1MiB,seed=7", "soft:size=3000,seed=8"};
    Devices source_devices(specs, DeviceRole::kSource);
    Devices target_devices(specs, DeviceRole::kTarget);
    TargetOptions target_options = RunningTarget::DefaultOptions();
    target_options.trust.psk_file = path_;
    target_options.trust.seal = target_seal;
    RunningTarget target(target_devices.pointers(), target_options);
    SourceOptions source_options = SourceOptionsFor(target.Port());
    source_options.trust.psk_file = path_;
    source_options.trust.seal = source_seal;
    RecordingObserver observer;
    SourceSession source(source_options, source_devices.pointers(), observer);
    Ends ends;
    ends.source = source.Run();
    ends.target = target.Report();
    const bool moved = ends.source.status.ok();
    source_devices.ExpectAllIn(moved ? DeviceState::kStop : DeviceState::kRunning);
    target_devices.ExpectAllIn(DeviceState::kRunning);
    return ends;
  }
  static void ExpectMoved(const Ends& ends, Sealing sealing) {
    for (const SessionReport* const report : {&ends.source, &ends.target}) {
      EXPECT_TRUE(report->status.ok()) << report->status;
      EXPECT_EQ(TrustKindName(report->trust), "psk");
      EXPECT_EQ(SealingName(report->sealing), SealingName(sealing));
      ASSERT_EQ(report->devices.size(), 2U);
      for (const DeviceReport& device : report->devices) EXPECT_TRUE(device.content_verified);
    }
  }

  std::string path_;
};

TEST_F(SessionTrustTest, ALaneThatIsLostWhileItProvesItselfIsMadeAnew) {
  TrustOptions trust;
  trust.psk_file = path_;
  const auto server = TlsContext::Make(trust, TlsRole::kServer);
  ASSERT_TRUE(server.ok()) << server.status();
  const Devices devices({"soft:size=16,seed=7"}, DeviceRole::kSource);
  RawTarget target;
  target.tls = server->get();
  const auto act = [](RawTarget& t) {
    t.Greet();
    t.AnswerTable();
    const LaneChallenge challenge = NewLaneChallenge();
    for (const bool hears_the_proof : {false, true}) {
      const UniqueFd lane = t.Accept();
      EXPECT_EQ(Hear(lane.get(), 28).size(), 28U);
      Say(lane.get(), {challenge.data(), challenge.size()});
      if (hears_the_proof) {
        EXPECT_EQ(Hear(lane.get(), kLaneProofBytes).size(), kLaneProofBytes);
      }
    }
    t.AcceptLane();  // which proves itself again, on another challenge
    EXPECT_EQ(t.HearFrames().size(), 3U);
    t.channel.Hang();
  };
  const SessionReport report = RunSource(devices, target, act, std::chrono::seconds(60), trust);
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(SessionTrustTest, BetweenLoopbackAddressesAutoDoesNotSeal) {
  ExpectMoved(Move(SealMode::kAuto, SealMode::kAuto), Sealing::kOff);
}

TEST_F(SessionTrustTest, EitherSideMayWantItSealed) {
  ExpectMoved(Move(SealMode::kOn, SealMode::kAuto), Sealing::kAllLanes);
  ExpectMoved(Move(SealMode::kAuto, SealMode::kOn), Sealing::kAllLanes);
}

TEST_F(SessionTrustTest, OneThatWantsItAndOneThatDoesNotAreBothTold) {
  const std::pair<SealMode, SealMode> pairs[] = {{SealMode::kOn, SealMode::kOff},
                                                 {SealMode::kOff, SealMode::kOn}};
  for (const auto& [source_seal, target_seal] : pairs) {
    const Ends ends = Move(source_seal, target_seal);
    const char* const says = source_seal == SealMode::kOn
                                 ? "the source wants packets to be sealed (--seal on), and the "
                                   "target does not (--seal off)"
                                 : "the target wants packets to be sealed (--seal on), and the "
                                   "source does not (--seal off)";
    EXPECT_THAT(std::string(ends.source.status.message()), HasSubstr(says));
    EXPECT_THAT(std::string(ends.target.status.message()), HasSubstr(says));
  }
}

// All of it: what is agreed on depends on nothing else.
TEST(AgreeOnSealingTest, IsWhatTheTableSays) {
  const control::SealMode sources[] = {control::SEAL_AUTO, control::SEAL_ON, control::SEAL_OFF};
  const SealMode targets[] = {SealMode::kAuto, SealMode::kOn, SealMode::kOff};
  for (const control::SealMode source : sources) {
    for (const SealMode target : targets) {
      for (const bool plain : {true, false}) {
        for (const bool off_loopback : {true, false}) {
          for (const TransportKind transport : {TransportKind::kTcp, TransportKind::kVerbs}) {
            const auto agreed = AgreeOnSealing(source, target, plain, transport, off_loopback);
            const bool on = source == control::SEAL_ON || target == SealMode::kOn;
            const bool off = source == control::SEAL_OFF || target == SealMode::kOff;
            EXPECT_EQ(agreed.ok(), !(on && (off || plain)));
            if (!agreed.ok()) continue;
            const Sealing by_itself = plain || off || !off_loopback        ? Sealing::kOff
                                      : transport == TransportKind::kVerbs ? Sealing::kTcpLanes
                                                                           : Sealing::kAllLanes;
            EXPECT_EQ(SealingName(*agreed), SealingName(on ? Sealing::kAllLanes : by_itself));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace godwit
