// Goal: a source that asks for more than its target was told to accept hears what it asked for,
// what is allowed and which option changes that; nothing is touched. At the limit it is welcome.
#include "engine/target_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/raw_peer.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::HasSubstr;

constexpr char kSpec[] = "soft:size=16,seed=7";

TargetOptions Limited() {
  TargetOptions options = RunningTarget::DefaultOptions();
  options.lanes_max = 2;
  options.packet_bytes_max = 4096;
  return options;
}

struct Excess {
  const char* name;
  void (*ask)(control::Hello& hello);
  const char* words;
};

class ExcessTest : public testing::TestWithParam<Excess> {};

TEST_P(ExcessTest, BothSidesAreToldWhatToChange) {
  const Watchdog watchdog(GetParam().name);
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), Limited());
  RawSource source(target.Port());
  control::ControlMessage hello = source.Hello();
  GetParam().ask(*hello.mutable_hello());
  source.channel.SayPreface();
  source.channel.Send(hello);
  source.channel.HearPreface();
  EXPECT_EQ(source.channel.HearAbort(), GetParam().words);
  source.channel.Hang();
  const SessionReport& report = target.Report();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_EQ(report.status.message(), GetParam().words);
  EXPECT_EQ(report.arena_bytes, 0u);
  devices.ExpectAllIn(DeviceState::kRunning);
}

INSTANTIATE_TEST_SUITE_P(
    Every, ExcessTest,
    testing::Values(
        Excess{"Lanes", [](control::Hello& hello) { hello.set_lanes(3); },
               "the source asks for 3 lanes, the target takes at most 2: lower --lanes at the "
               "source or raise it at the target"},
        Excess{"PacketBytes", [](control::Hello& hello) { hello.set_packet_bytes(4097); },
               "the source asks for packets of 4097 bytes, the target takes at most 4096: lower "
               "--packet-bytes at the source or raise it at the target"},
        Excess{"Transport",
               [](control::Hello& hello) { hello.set_transports(0, control::TRANSPORT_VERBS); },
               "the source offers transport verbs, the target takes only tcp: change --transport "
               "at the source or at the target"}),
    [](const auto& excess) { return std::string(excess.param.name); });

TEST(TargetLimitsTest, AtTheLimitASourceIsWelcome) {
  const Watchdog watchdog("a source at the limit");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), Limited());
  RawSource source(target.Port());
  source.lane_count = 2;
  source.packet_bytes = 4096;
  EXPECT_TRUE(source.OpenLanes());
  source.channel.Hang();
  EXPECT_EQ(target.Report().lanes.size(), 2u);
}

TEST(TargetLimitsTest, TheDefaultsAreTheFormats) {
  control::Hello hello;
  hello.set_frame_version(1);
  hello.set_lanes(64);
  hello.set_packet_bytes((8 << 20) - 80);
  EXPECT_TRUE(CheckAskedFor(hello, TargetOptions()).ok());
  EXPECT_TRUE(CheckTargetLimits(TargetOptions()).ok());
}

TEST(TargetLimitsTest, ALimitOutsideOfTheFormatsIsRefusedBeforeItListens) {
  const std::pair<uint32_t, size_t> wrong[] = {
      {0, 1}, {65, 1}, {1, 0}, {1, (size_t{8} << 20) - 79}};
  for (const auto& [lanes, packet_bytes] : wrong) {
    TargetOptions options = RunningTarget::DefaultOptions();
    options.lanes_max = lanes;
    options.packet_bytes_max = packet_bytes;
    const Devices devices({kSpec}, DeviceRole::kTarget);
    RunningTarget target(devices.pointers(), options);
    const absl::Status status = target.Report().status;
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << lanes << " " << packet_bytes << ": " << status;
    EXPECT_EQ(target.observer().phases, std::vector<SessionPhase>{SessionPhase::kFinished});
  }
}

TEST(TargetLimitsTest, TheTransportsThatDontMeetAreNamed) {
  const auto why = [](std::initializer_list<control::Transport> offered, TransportKind accepted) {
    control::Hello hello;
    for (const control::Transport transport : offered) hello.add_transports(transport);
    return std::string(NoCommonTransport(hello, accepted).message());
  };
  EXPECT_THAT(why({control::TRANSPORT_TCP}, TransportKind::kVerbs),
              HasSubstr("offers transport tcp, the target takes only verbs"));
  EXPECT_THAT(why({control::TRANSPORT_VERBS}, TransportKind::kAuto),
              HasSubstr("no RDMA port that is up"));
  EXPECT_THAT(why({}, TransportKind::kTcp), HasSubstr("no transport that the target knows"));
}

}  // namespace
}  // namespace godwit
