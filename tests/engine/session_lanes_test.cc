// Goal: lanes die and come back, and nothing that they had is lost or doubled.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>

#include <chrono>
#include <thread>

#include "engine/packet.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/raw_target.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::HasSubstr;

// The frames as they go out on a lane that was made `generation` times before.
std::vector<wire::Frame> OnLaneOf(uint16_t generation, std::vector<wire::Frame> frames) {
  for (size_t i = 0; i < frames.size(); ++i) {
    frames[i].lane_sequence = LaneCount(generation, i);
    frames[i].epoch = generation;
  }
  return frames;
}

std::optional<control::ControlMessage> HearLoaded(RawSource& source) {
  std::optional<control::ControlMessage> message = source.channel.Receive();
  while (message.has_value() && (message->has_receipts() || message->has_lane_down())) {
    message = source.channel.Receive();
  }
  return message;
}

void ExpectLoaded(RawSource& source) {
  const auto message = HearLoaded(source);
  ASSERT_TRUE(message.has_value() && message->has_loaded());
  EXPECT_EQ(message->loaded().devices(0).bytes(), kStreamBytes);
  EXPECT_TRUE(message->loaded().devices(0).content_verified());
}

void HandOver(RawSource& source) {
  control::ControlMessage message;
  message.mutable_commit();
  source.channel.Send(message);
  const auto done = source.channel.Receive();
  EXPECT_TRUE(done.has_value() && done->has_done());
  message.mutable_forget();
  source.channel.Send(message);
}

struct LanesTest : testing::Test {
  const Watchdog watchdog{"lanes"};
  const Devices devices{{kSpec}, DeviceRole::kTarget};
};

TEST_F(LanesTest, WhatADamagedLaneHadComesAgainOnTheNextOne) {
  RunningTarget target(devices.pointers(), RunningTarget::DefaultOptions());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  std::vector<wire::Frame> damaged = TheFrames();
  damaged[1].payload[0] ^= 1;
  Say(source.lanes[0].get(), OnTheWire(damaged));
  EXPECT_THAT(source.channel.HearLaneDown(), HasSubstr("CRC"));
  source.lanes[0] = ConnectTo(source.port);
  Say(source.lanes[0].get(), source.LanePreface(0, 1) + OnTheWire(OnLaneOf(1, TheFrames())));
  ExpectLoaded(source);
  HandOver(source);
  const SessionReport& report = target.Report();
  EXPECT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
  EXPECT_EQ(report.lanes[0].duplicates, 1U);  // the frame before the damaged one
}

TEST_F(LanesTest, ALaneThatIsLostBeforeAllHaveComeIsTakenAnew) {
  RunningTarget target(devices.pointers());
  RawSource source(target.Port());
  source.lane_count = 2;
  ASSERT_TRUE(source.Greet());
  source.channel.Send(RawSource::Setup());
  const auto open_lane = [&source](uint16_t lane) {
    UniqueFd socket = ConnectTo(source.port);
    Say(socket.get(), source.LanePreface(lane));
    return socket;
  };
  (void)open_lane(0);  // and gone again
  const UniqueFd lost_for_the_source_only = open_lane(0);
  source.lanes.push_back(open_lane(0));
  source.lanes.push_back(open_lane(1));
  const auto answer = source.channel.Receive();
  ASSERT_TRUE(answer.has_value() && answer->has_lane_setup());
  for (const wire::Frame& frame : OnLaneOf(0, TheFrames())) source.SendFrame(0, frame);
  ExpectLoaded(source);
  HandOver(source);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
}

TEST_F(LanesTest, ALaneThatTheSourceMakesAgainReplacesOneThatSeemsToLive) {
  RunningTarget target(devices.pointers(), RunningTarget::DefaultOptions());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  source.SendFrame(0, TheFrames()[0]);
  const UniqueFd old_lane = std::move(source.lanes[0]);  // stays open
  source.lanes[0] = ConnectTo(source.port);
  Say(source.lanes[0].get(), source.LanePreface(0, 1) + OnTheWire(OnLaneOf(1, TheFrames())));
  ExpectLoaded(source);
  HandOver(source);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
}

TEST_F(LanesTest, AGreetingThatWasHeardBeforeMakesNoLane) {
  RunningTarget target(devices.pointers(), RunningTarget::DefaultOptions());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  for (const uint16_t generation : {uint16_t{0}, uint16_t{2}, uint16_t{2}, uint16_t{1}}) {
    const UniqueFd lane = ConnectTo(source.port);
    Say(lane.get(), source.LanePreface(0, generation));
    if (generation == 2) continue;
    EXPECT_EQ(Hear(lane.get(), 1), "");  // turned away
  }
  source.channel.Hang();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
}

TEST_F(LanesTest, ASessionOverTcpMakesNoQueuePair) {
  RunningTarget target(devices.pointers(), RunningTarget::DefaultOptions());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  control::ControlMessage remake;
  remake.mutable_remake_lane()->set_generation(1);
  source.channel.Send(remake);
  EXPECT_THAT(source.channel.HearAbort(), HasSubstr("out of turn"));
  source.channel.Hang();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
}

TEST_F(LanesTest, AStrangerWhoFallsSilentInMidStreamIsTurnedAwayWhileTheSessionGoesOn) {
  RunningTarget target(devices.pointers(), RunningTarget::DefaultOptions());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  const UniqueFd stranger = ConnectTo(source.port);
  Say(stranger.get(), "GODW");
  EXPECT_EQ(Hear(stranger.get(), 1), "");  // hung up on: nothing else would wake the target for it
  for (const wire::Frame& frame : OnLaneOf(0, TheFrames())) source.SendFrame(0, frame);
  ExpectLoaded(source);
  HandOver(source);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
}

TEST_F(LanesTest, AnUnknownLaneOrSessionIsTurnedAwayInMidStream) {
  RunningTarget target(devices.pointers(), RunningTarget::DefaultOptions());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  const UniqueFd unknown = ConnectTo(source.port);
  Say(unknown.get(), source.LanePreface(1, 1));
  EXPECT_EQ(Hear(unknown.get(), 1), "");
  RawSource other(source.port);
  other.session_id = "fedcba9876543210";
  const UniqueFd stranger = ConnectTo(source.port);
  Say(stranger.get(), other.LanePreface(0, 1));
  EXPECT_EQ(Hear(stranger.get(), 1), "");
  Say(source.lanes[0].get(), OnTheWire(TheFrames()));
  ExpectLoaded(source);
  HandOver(source);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
}

TEST_F(LanesTest, TheSequenceOfTheLaneBeforeIsRefusedOnTheNext) {
  RunningTarget target(devices.pointers(), RunningTarget::DefaultOptions());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  source.lanes[0] = ConnectTo(source.port);
  Say(source.lanes[0].get(), source.LanePreface(0, 1) + OnTheWire(TheFrames()));
  std::string why = source.channel.HearLaneDown();  // of the first lane, which is closed
  if (why.find("sequence") == std::string::npos) why = source.channel.HearLaneDown();
  EXPECT_THAT(why, HasSubstr("lane sequence"));
  source.channel.Hang();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
}

// The source's side.
TEST(SourceLanesTest, ALaneThatTheTargetClosesIsMadeAgainAndHasItsPacketsAgain) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Ready();
    EXPECT_EQ(t.HearFrames().size(), 3U);
    t.lane.Reset();  // with nothing receipted
    t.lane = t.Accept();
    const std::string preface = Hear(t.lane.get(), 28);
    EXPECT_EQ(preface.substr(24), wire::BigEndian(1, 2) + wire::BigEndian(0, 2));
    std::vector<wire::Frame> frames;
    for (uint32_t i = 0; i < 3; ++i) {
      frames.push_back(wire::Decode(t.HearFrame()));
      EXPECT_EQ(frames[i].index, i);
      EXPECT_EQ(frames[i].epoch, 1U);
      EXPECT_EQ(frames[i].lane_sequence, LaneCount(1, i));
      if (i > 0) continue;
      // Until it has proved itself it has one packet at a time.
      char byte = 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      EXPECT_EQ(::recv(t.lane.get(), &byte, 1, MSG_DONTWAIT), -1) << "a packet too many";
      t.SendReceipts({LaneCount(1, 1)}, {0});
    }
    t.SendLoaded(16, frames.back().crc_before);
    t.HearCommit();
    control::ControlMessage done;
    done.mutable_done();
    t.channel.Send(done);
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
  EXPECT_EQ(report.lanes[0].remade, 1U);
  EXPECT_EQ(report.lanes[0].sent_again, 3U);
  EXPECT_EQ(report.bytes, 16U);
}

TEST(SourceLanesTest, ALaneThatIsLostBeforeItCarriesAnythingIsMadeAnew) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Greet();
    t.AnswerTable();
    for (int lost = 0; lost < 3; ++lost) {
      const UniqueFd lane = t.Accept();
      if (lost > 0) Hear(lane.get(), 28);
    }
    t.AcceptLane();
    const std::vector<wire::Frame> frames = t.HearFrames();
    EXPECT_EQ(frames.size(), 3U);
    t.SendReceipts({LaneCount(0, 3)}, {3});
    t.SendLoaded(16, frames.back().crc_before);
    t.HearCommit();
    control::ControlMessage done;
    done.mutable_done();
    t.channel.Send(done);
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
}

TEST(SourceLanesTest, ALaneThatIsLostEachTimeIsGivenUp) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Greet();
    t.AnswerTable();
    for (int lost = 0; lost < 8; ++lost) t.Accept();
    EXPECT_THAT(t.channel.HearAbort(), HasSubstr("lane 0"));
    t.channel.Hang();
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST(SourceLanesTest, AReceiptForTheLaneBeforeSaysNothingOfTheNext) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Ready();
    EXPECT_EQ(t.HearFrames().size(), 3U);
    t.lane.Reset();
    t.lane = t.Accept();
    (void)Hear(t.lane.get(), 28);
    (void)t.HearFrame();
    t.SendReceipts({LaneCount(0, 3)}, {0});  // late, and of no use
    char byte = 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(::recv(t.lane.get(), &byte, 1, MSG_DONTWAIT), -1) << "it took it for its own";
    t.channel.Hang();
    t.channel = RawChannel(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)));
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack) << report.status;
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST(SourceLanesTest, AQueuePairThatWasNotAskedForIsNoLane) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Ready();
    control::ControlMessage remade;
    remade.mutable_lane_remade()->set_generation(1);
    t.channel.Send(remade);
    const std::vector<wire::Frame> frames = t.HearFrames();  // still on the first lane
    EXPECT_EQ(frames.size(), 3U);
    t.SendReceipts({LaneCount(0, 3)}, {3});
    t.SendLoaded(16, frames.back().crc_before);
    t.HearCommit();
    control::ControlMessage done;
    done.mutable_done();
    t.channel.Send(done);
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
  EXPECT_EQ(report.lanes[0].remade, 0U);
}

TEST(SourceLanesTest, ALaneThatIsYetToBeMadeHasReceivedNothing) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Ready();
    EXPECT_EQ(t.HearFrames().size(), 3U);
    t.SendReceipts({LaneCount(1, 0)}, {0});  // true: the target may have it before the source
    t.SendReceipts({LaneCount(1, 1)}, {0});  // a lie
    (void)t.channel.HearAbort();
    t.channel.Hang();
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("acknowledges 1 "));
}

TEST(SourceLanesTest, WithNoLaneLeftItIsRolledBackWhenTheTimeIsOver) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  SourceOptions options = SourceOptionsFor(target.port);
  options.lanes = 1;
  options.packet_bytes = 8;
  options.reconnect_timeout = std::chrono::milliseconds(300);
  std::thread thread([&] {
    target.Ready();
    EXPECT_EQ(target.HearFrames().size(), 3U);
    target.listener.Reset();  // nobody takes the new one
    target.lane.Reset();
    EXPECT_THAT(target.channel.HearAbort(), HasSubstr("lanes have been down for 300 ms"));
    target.channel.Hang();
  });
  RecordingObserver observer;
  SourceSession session(options, devices.pointers(), observer);
  const SessionReport report = session.Run();
  thread.join();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  // It never came back: that counts as well.
  ASSERT_EQ(report.lanes.size(), 1U);
  EXPECT_EQ(report.lanes[0].remade, 0U);
  EXPECT_GE(report.lanes[0].down_time, options.reconnect_timeout);
  EXPECT_EQ(report.lanes[0].down_longest, report.lanes[0].down_time);
  devices.ExpectAllIn(DeviceState::kRunning);
}

}  // namespace
}  // namespace godwit
