// Goal: what comes to a target's port and is not its source is turned away with a note, and the
// source still gets through; what its source says wrongly ends the session with one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "engine/target_callers.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr char kSpec[] = "soft:size=5000,seed=7";

// A real source now moves its device to `target`.
void ExpectTheSourceGetsThrough(RunningTarget& target, const Devices& devices) {
  const Devices own({kSpec}, DeviceRole::kSource);
  RecordingObserver observer;
  SourceSession source(SourceOptionsFor(target.Port()), own.pointers(), observer);
  const SessionReport report = source.Run();
  EXPECT_TRUE(report.status.ok()) << report.status;
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
  own.ExpectAllIn(DeviceState::kStop);
  devices.ExpectAllIn(DeviceState::kRunning);
}

size_t Count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

struct Stranger {
  const char* name;
  std::string says;
  bool leaves;  // or stays and says no more
};

class StrangerTest : public testing::TestWithParam<Stranger> {};

TEST_P(StrangerTest, IsTurnedAwayAndTheSourceGetsThrough) {
  const Watchdog watchdog(GetParam().name);
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  UniqueFd stranger = ConnectTo(target.Port());
  Say(stranger.get(), GetParam().says);
  if (GetParam().leaves) stranger.Reset();
  ExpectTheSourceGetsThrough(target, devices);
  if (GetParam().leaves || GetParam().says.size() >= 8) {
    EXPECT_THAT(target.observer().Notes(), HasSubstr("turned away"));
  }
}

std::string RandomBytes() {
  const unsigned seed = std::random_device()();
  std::printf("random bytes of seed %u\n", seed);
  std::mt19937 random(seed);
  std::string bytes(5'000, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  bytes[0] = 'x';  // never the preface
  return bytes;
}

INSTANTIATE_TEST_SUITE_P(
    Every, StrangerTest,
    testing::Values(Stranger{"Nothing", "", true}, Stranger{"NothingAndStays", "", false},
                    Stranger{"Http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
                    Stranger{"HttpAndLeaves", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
                    Stranger{"Tls", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 9), false},
                    Stranger{"Random", RandomBytes(), false},
                    Stranger{"HalfAPreface", "GODW", false},
                    Stranger{"HalfAPrefaceAndLeaves", "GODW", true},
                    Stranger{"PrefaceAndLeaves", kRawPreface, true},
                    Stranger{"PrefaceAndGarbage", kRawPreface + "garbage", true},
                    Stranger{"PrefaceAndHugeLength", kRawPreface + "\xff\xff\xff\xff", false},
                    Stranger{"PrefaceAndUnparsable",
                             kRawPreface + std::string("\0\0\0\4\xff\xff\xff\xff", 8), false},
                    Stranger{"ALaneOfNoSession", "GODWITLN0123456789abcdef" + std::string(4, '\0'),
                             false}),
    [](const auto& stranger) { return std::string(stranger.param.name); });

TEST(StrangersTest, TwoHundredConnectionsThatSayNothing) {
  const Watchdog watchdog("200 strangers");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  std::vector<UniqueFd> strangers;
  strangers.reserve(200);
  for (int i = 0; i < 200; ++i) strangers.push_back(ConnectTo(target.Port()));
  ExpectTheSourceGetsThrough(target, devices);
}

// The right preface, and nothing behind it.
std::vector<UniqueFd> SilentGreeters(RunningTarget& target, size_t count) {
  std::vector<UniqueFd> greeters;
  for (size_t i = 0; i < count; ++i) {
    greeters.push_back(ConnectTo(target.Port()));
    Say(greeters.back().get(), kRawPreface);
    EXPECT_EQ(Hear(greeters.back().get(), kRawPreface.size()), kRawPreface);  // it is being heard
  }
  return greeters;
}

TEST(StrangersTest, ASourceWaitsForNoSilentGreetersDeadline) {
  const Watchdog watchdog("silent greeters");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  const std::vector<UniqueFd> greeters = SilentGreeters(target, 4);
  ExpectTheSourceGetsThrough(target, devices);
  // They were there until it came: none was given up for its silence.
  EXPECT_THAT(target.observer().Notes(), Not(HasSubstr("said nothing in")));
  EXPECT_EQ(Count(target.observer().Notes(), "a source has come before it"), greeters.size());
}

TEST(StrangersTest, OfTooManySilentGreetersTheOldestGo) {
  const Watchdog watchdog("many silent greeters");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  const std::vector<UniqueFd> greeters = SilentGreeters(target, TargetCallers::kCallersMax + 3);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(Hear(greeters[i].get(), 1), "") << i;  // hung up on
  ExpectTheSourceGetsThrough(target, devices);
  const std::string notes = target.observer().Notes();
  EXPECT_THAT(notes, Not(HasSubstr("said nothing in")));
  // Three by greeters, and one more by the source.
  EXPECT_EQ(Count(notes, "this one makes room"), 4U);
  EXPECT_EQ(Count(notes, "a source has come before it"), TargetCallers::kCallersMax - 1);
}

TEST(StrangersTest, WhoHasBegunToSpeakStaysBeforeTheSilent) {
  const Watchdog watchdog("a slow source among silent greeters");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  RawSource source(target.Port());
  const std::string hello = source.Hello().SerializeAsString();
  Say(source.channel.fd(), kRawPreface + wire::BigEndian(hello.size(), 4));
  source.channel.HearPreface();
  const std::vector<UniqueFd> greeters = SilentGreeters(target, TargetCallers::kCallersMax + 3);
  Say(source.channel.fd(), hello);
  const auto welcome = source.channel.Receive();
  EXPECT_TRUE(welcome.has_value() && welcome->has_welcome());
  source.channel.Hang();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
  EXPECT_EQ(Count(target.observer().Notes(), "a source has come before it"),
            TargetCallers::kCallersMax - 1);
}

TEST(StrangersTest, OnesThatComeWhileTheLanesDoAreTurnedAwayToo) {
  const Watchdog watchdog("strangers among lanes");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  RawSource source(target.Port());
  ASSERT_TRUE(source.Greet());
  source.channel.Send(RawSource::Setup());
  std::vector<UniqueFd> strangers;
  const auto stranger_says = [&](const std::string& bytes) {
    strangers.push_back(ConnectTo(source.port));
    Say(strangers.back().get(), bytes);
  };
  stranger_says("GET / HTTP/1.1\r\n\r\n");
  stranger_says(std::string("GODWIT\0\2", 8));  // another version: not our peer's
  stranger_says(kRawPreface);
  stranger_says("GODWITLNfedcba9876543210" + wire::BigEndian(0, 4));  // another session's
  stranger_says(source.LanePreface(1));                               // there is only lane 0
  stranger_says(source.LanePreface(0xffff, 0xffff));
  source.lanes.push_back(ConnectTo(source.port));
  Say(source.lanes[0].get(), source.LanePreface(0));
  const auto ready = source.channel.Receive();
  EXPECT_TRUE(ready.has_value() && ready->has_lane_setup());
  source.channel.Hang();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST(StrangersTest, AnotherVersionOfUsEndsTheSessionWithBothVersions) {
  const Watchdog watchdog("another version");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  UniqueFd peer = ConnectTo(target.Port());
  Say(peer.get(), std::string("GODWIT\1\2", 8));
  EXPECT_EQ(Hear(peer.get(), 8), kRawPreface);  // so that it can say the same
  const absl::Status status = target.Report().status;
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("version 2"), HasSubstr("1")));
  devices.ExpectAllIn(DeviceState::kRunning);
}

// A source that says Hello, and then what `act` says.
struct Abuse {
  const char* name;
  void (*act)(RawSource& source);
  const char* word;
};

class AbuseTest : public testing::TestWithParam<Abuse> {};

TEST_P(AbuseTest, EndsTheSessionAndTheDeviceRuns) {
  const Watchdog watchdog(GetParam().name);
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers());
  {
    RawSource source(target.Port());
    GetParam().act(source);
    (void)source.channel.HearAbort();
  }
  const SessionReport& report = target.Report();
  EXPECT_FALSE(report.status.ok());
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr(GetParam().word));
  devices.ExpectAllIn(DeviceState::kRunning);
}

void GreetWith(RawSource& source, const std::function<void(control::Hello&)>& change) {
  control::ControlMessage hello = source.Hello();
  change(*hello.mutable_hello());
  source.channel.SayPreface();
  source.channel.Send(hello);
  source.channel.HearPreface();
}

control::ControlMessage Commit() {
  control::ControlMessage message;
  message.mutable_commit();
  return message;
}

INSTANTIATE_TEST_SUITE_P(
    Every, AbuseTest,
    testing::Values(
        Abuse{"NoLanes", [](RawSource& s) { GreetWith(s, [](auto& h) { h.set_lanes(0); }); },
              "0 lanes"},
        Abuse{"TooManyLanes", [](RawSource& s) { GreetWith(s, [](auto& h) { h.set_lanes(65); }); },
              "65 lanes"},
        Abuse{"HugeLanes",
              [](RawSource& s) { GreetWith(s, [](auto& h) { h.set_lanes(0xffffffff); }); },
              "4294967295 lanes"},
        Abuse{"NoPacketBytes",
              [](RawSource& s) { GreetWith(s, [](auto& h) { h.set_packet_bytes(0); }); },
              "0 bytes"},
        Abuse{"PacketBytesOneOver",
              [](RawSource& s) { GreetWith(s, [](auto& h) { h.set_packet_bytes(8388529); }); },
              "8388529 bytes"},
        Abuse{"PacketBytesHuge",
              [](RawSource& s) { GreetWith(s, [](auto& h) { h.set_packet_bytes(~uint64_t{0}); }); },
              "18446744073709551615 bytes"},
        Abuse{"FrameVersion",
              [](RawSource& s) { GreetWith(s, [](auto& h) { h.set_frame_version(2); }); },
              "version 2"},
        Abuse{"NoTransport",
              [](RawSource& s) { GreetWith(s, [](auto& h) { h.clear_transports(); }); },
              "transport"},
        Abuse{"HelloTwice",
              [](RawSource& s) {
                GreetWith(s, [](auto&) {});
                s.channel.Send(s.Hello());
              },
              "out of turn"},
        Abuse{"CommitAtOnce",
              [](RawSource& s) {
                GreetWith(s, [](auto&) {});
                s.channel.Send(Commit());
              },
              "out of turn"},
        Abuse{"NoDevices",
              [](RawSource& s) {
                s.kinds.clear();
                s.Greet();
              },
              "0 devices"},
        Abuse{"ThousandDevices",
              [](RawSource& s) {
                s.kinds.assign(1000, "soft");
                s.Greet();
              },
              "1000 devices"},
        Abuse{"CommitBeforeLoaded",
              [](RawSource& s) {
                if (s.OpenLanes()) s.channel.Send(Commit());
              },
              "out of turn"},
        Abuse{"Garbage",
              [](RawSource& s) {
                if (s.OpenLanes()) s.channel.SendRaw(std::string(99, '\xff'));
              },
              "does not parse"},
        Abuse{"EmptyMessage",
              [](RawSource& s) {
                if (s.OpenLanes()) s.channel.SendRaw("");
              },
              "0 bytes"},
        Abuse{"OversizeMessage",
              [](RawSource& s) {
                if (s.OpenLanes()) Say(s.channel.fd(), wire::BigEndian(65'537, 4));
              },
              "65537 bytes"},
        Abuse{"AbortWithControlCharacters",
              [](RawSource& s) {
                if (!s.OpenLanes()) return;
                control::ControlMessage message;
                message.mutable_abort()->set_reason("a\nb\x1b[2J");
                s.channel.Send(message);
                ::shutdown(s.channel.fd(), SHUT_WR);
              },
              "a?b?[2J"},
        Abuse{"LeavesAfterTheLanes",
              [](RawSource& s) {
                s.OpenLanes();
                ::shutdown(s.channel.fd(), SHUT_WR);
              },
              "closed the control channel"}),
    [](const auto& abuse) { return std::string(abuse.param.name); });

}  // namespace
}  // namespace godwit
