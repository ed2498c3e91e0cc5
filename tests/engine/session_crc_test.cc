// Goal: CRCs are left out where both sides say so and nowhere else; and then all that a frame says
// beside them is checked as before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/raw_peer.h"
#include "tests/engine/raw_target.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TargetOptions TargetOf(bool crc) {
  TargetOptions options = RunningTarget::DefaultOptions();
  options.crc = crc;
  return options;
}

// The right frames as a source without CRCs sends them.
std::vector<wire::Frame> FramesWithoutCrc() {
  std::vector<wire::Frame> frames = TheFrames();
  for (wire::Frame& frame : frames) frame.crc_before = frame.crc_after = frame.config_crc = 0;
  return frames;
}

RawSource SourceWithoutCrc(uint16_t port) {
  RawSource source(port);
  source.crc_off = true;
  return source;
}

std::string Commit(RawSource& source) {
  control::ControlMessage commit;
  commit.mutable_commit();
  source.channel.Send(commit);
  const auto done = source.channel.Receive();
  control::ControlMessage forget;
  forget.mutable_forget();
  source.channel.Send(forget);
  return done.has_value() && done->has_done() ? "done" : "not done";
}

// The target's Loaded, whatever receipts come before.
std::optional<control::ControlMessage> HearLoaded(RawSource& source) {
  auto message = source.channel.Receive();
  while (message.has_value() && message->has_receipts()) message = source.channel.Receive();
  return message;
}

class EitherSideTest : public testing::TestWithParam<std::tuple<bool, bool>> {};

TEST_P(EitherSideTest, HasCrcsUnlessBothSayNo) {
  const auto [at_source, at_target] = GetParam();
  const bool agreed = at_source || at_target;
  const Watchdog watchdog("a session");
  const std::vector<std::string> specs = {"soft:size=100000,seed=7"};
  const Devices source(specs, DeviceRole::kSource);
  const Devices target(specs, DeviceRole::kTarget);
  RunningTarget running(target.pointers(), TargetOf(at_target));
  SourceOptions options = SourceOptionsFor(running.Port());
  options.crc = at_source;
  RecordingObserver observer;
  SourceSession session(options, source.pointers(), observer);
  const SessionReport sent = session.Run();
  const SessionReport& loaded = running.Report();
  for (const SessionReport* report : {&sent, &loaded}) {
    EXPECT_EQ(report->outcome, SessionOutcome::kDone) << report->status;
    EXPECT_EQ(report->crc, agreed);
    ASSERT_EQ(report->devices.size(), 1U);
    EXPECT_EQ(report->devices[0].bytes, 100000U);
    EXPECT_EQ(report->devices[0].sent_crc32c != 0, agreed);
    EXPECT_EQ(report->devices[0].loaded_crc32c != 0, agreed);
  }
  EXPECT_TRUE(loaded.devices[0].content_verified);
}

INSTANTIATE_TEST_SUITE_P(Every, EitherSideTest, testing::Combine(testing::Bool(), testing::Bool()));

TEST(NoCrcTest, ASourceThatMayLeavesThemOutOfEveryFrame) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  target.welcome.mutable_welcome()->set_crc_off(true);
  std::vector<std::string> heard;
  SourceOptions options;
  options.crc = false;
  const SessionReport report = RunSource(
      devices, target,
      [&](RawTarget& t) {
        t.Ready();
        for (const wire::Frame& frame : t.HearFrames()) heard.push_back(wire::Encode(frame));
        t.SendLoaded(kStreamBytes, 0);
        t.HearCommit();
        control::ControlMessage done;
        done.mutable_done();
        t.channel.Send(done);
        (void)t.channel.Receive();
      },
      options);
  EXPECT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
  std::vector<std::string> right;
  for (const wire::Frame& frame : FramesWithoutCrc()) right.push_back(wire::Encode(frame));
  EXPECT_EQ(heard, right);
}

TEST(NoCrcTest, ATargetCantTalkASourceOutOfThem) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  target.welcome.mutable_welcome()->set_crc_off(true);
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Greet();
    (void)t.channel.HearAbort();
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("leave out CRCs"));
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST(NoCrcTest, ATargetThatWantsThemStillChecksThem) {
  const Watchdog watchdog("frames without CRCs");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), TargetOf(true));
  RawSource source = SourceWithoutCrc(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  Say(source.lanes[0].get(), OnTheWire(FramesWithoutCrc()));
  EXPECT_THAT(source.channel.HearLaneDown(), AllOf(HasSubstr("lane 0"), HasSubstr("CRC")));
  source.channel.Hang();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
}

TEST(NoCrcTest, ATargetTakesFramesWithoutThem) {
  const Watchdog watchdog("frames without CRCs");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), TargetOf(false));
  RawSource source = SourceWithoutCrc(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  Say(source.lanes[0].get(), OnTheWire(FramesWithoutCrc()));
  const auto loaded = HearLoaded(source);
  ASSERT_TRUE(loaded.has_value() && loaded->has_loaded());
  EXPECT_EQ(loaded->loaded().devices(0).bytes(), kStreamBytes);
  EXPECT_EQ(loaded->loaded().devices(0).crc32c(), 0U);
  EXPECT_EQ(Commit(source), "done");
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
}

// What is left finds these; `costs_the_lane` and no more where it may be damage.
struct Lie {
  const char* name;
  void (*tell)(wire::Frame& frame);
  std::vector<const char*> words;
  bool costs_the_lane = false;
};

class StillCheckedTest : public testing::TestWithParam<Lie> {};

TEST_P(StillCheckedTest, IsToldWithWhereAndWhat) {
  const Watchdog watchdog(GetParam().name);
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), TargetOf(false));
  RawSource source = SourceWithoutCrc(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  std::vector<wire::Frame> frames = FramesWithoutCrc();
  GetParam().tell(frames[1]);
  Say(source.lanes[0].get(), OnTheWire(frames));
  const std::string told =
      GetParam().costs_the_lane ? source.channel.HearLaneDown() : source.channel.HearAbort();
  source.channel.Hang();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
  devices.ExpectAllIn(DeviceState::kRunning);
  for (const char* word : GetParam().words) EXPECT_THAT(told, HasSubstr(word));
}

INSTANTIATE_TEST_SUITE_P(
    Every, StillCheckedTest,
    testing::Values(
        // A bit of the header that changed on the way: the header CRC is that of what was sent.
        Lie{"HeaderDamaged",
            [](wire::Frame& f) {
              f.header_crc = static_cast<uint32_t>(wire::Number(wire::Encode(f).substr(64, 4)));
              f.stream_offset ^= 1;
            },
            {"lane 0", "header CRC"},
            true},
        Lie{"Magic", [](wire::Frame& f) { f.magic ^= 1; }, {"lane 0", "magic"}, true},
        Lie{"LaneSequence", [](wire::Frame& f) { f.lane_sequence = 7; }, {"lane 0", "7"}, true},
        Lie{"StreamOffset", [](wire::Frame& f) { f.stream_offset = 7; }, {kSpec, "byte 7"}},
        Lie{"Index", [](wire::Frame& f) { f.index = 100000; }, {"lane 0", "index 100000"}},
        Lie{"Flags", [](wire::Frame& f) { f.flags = 2; }, {"lane 0", "flags", "0x2"}},
        Lie{"CrcBefore", [](wire::Frame& f) { f.crc_before = 1; }, {"lane 0", "packet 1", "CRC"}},
        Lie{"CrcAfter", [](wire::Frame& f) { f.crc_after = 1; }, {"lane 0", "packet 1", "CRC"}},
        Lie{"ConfigCrc", [](wire::Frame& f) { f.config_crc = 1; }, {"lane 0", "packet 1", "CRC"}}),
    [](const auto& lie) { return std::string(lie.param.name); });

// What leaving them out costs. The device of this test knows its content, which others do not.
TEST(NoCrcTest, ADamagedPayloadGetsAsFarAsTheDevice) {
  const Watchdog watchdog("a damaged payload");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), TargetOf(false));
  RawSource source = SourceWithoutCrc(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  std::vector<wire::Frame> frames = FramesWithoutCrc();
  frames[1].payload[3] ^= 1;
  Say(source.lanes[0].get(), OnTheWire(frames));
  const std::string told = source.channel.HearAbort();
  EXPECT_THAT(told, HasSubstr("refused the state"));
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
  EXPECT_EQ(target.Report().devices[0].bytes, kStreamBytes);
}

}  // namespace
}  // namespace godwit
