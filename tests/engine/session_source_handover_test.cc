// Goal: at the handover a source gives its device up only to a target that has all of it, and then
// obeys that target's answer alone, however often it has to ask.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/raw_target.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr char kSpec[] = "soft:size=16,seed=7";

TEST(SourceHandoverTest, ToAGoodTargetTheDeviceIsHandedOver) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  std::vector<wire::Frame> frames;
  const SessionReport report = RunSource(devices, target, [&](RawTarget& t) {
    t.Ready();
    frames = t.HearFrames();
    t.SendReceipts({3}, {3});
    t.SendLoaded(16, frames.back().crc_before);
    t.HearCommit();
    control::ControlMessage done;
    done.mutable_done();
    t.channel.Send(done);
    const auto forget = t.channel.Receive();
    EXPECT_TRUE(forget.has_value() && forget->has_forget());
  });
  EXPECT_TRUE(report.status.ok()) << report.status;
  EXPECT_EQ(report.outcome, SessionOutcome::kDone);
  devices.ExpectAllIn(DeviceState::kStop);

  // What it sent is the document's, field by field.
  ASSERT_EQ(frames.size(), 3U);
  std::string stream;
  for (size_t i = 0; i < frames.size(); ++i) {
    const auto index = static_cast<uint32_t>(i);
    wire::Frame expected =
        i < 2 ? wire::DataFrame(0, index, stream, frames[i].payload)
              : wire::ConfigFrame(0, index, stream, "godwit-soft 1 size=16 seed=7");
    expected.lane_sequence = i;
    EXPECT_EQ(wire::Encode(frames[i]), wire::Encode(expected)) << "packet " << i;
    stream += frames[i].payload;
  }
}

// Taking them down takes milliseconds, for which a VM need not stand still.
TEST(SourceHandoverTest, TheLanesStayUntilTheDevicesRunAtTheTarget) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    t.Ready();
    t.SendLoaded(16, t.HearFrames().back().crc_before);
    t.HearCommit();
    char byte = 0;
    EXPECT_EQ(::recv(t.lane.get(), &byte, 1, MSG_DONTWAIT), -1) << "it is closed";
    EXPECT_EQ(errno, EAGAIN);
    control::ControlMessage done;
    done.mutable_done();
    t.channel.Send(done);
    EXPECT_EQ(Hear(t.lane.get(), 1), "");
  });
  EXPECT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
}

// The last packet leaves before the step that stopped its device is over, so Loaded may come within
// it. This one comes sooner still: it is not out of turn, but it is a lie.
TEST(SourceHandoverTest, LoadedThatComesWhileADeviceStopsIsLookedAtWhenItStands) {
  const Watchdog watchdog("a source that is slow to stop");
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  std::thread thread([&] {
    target.Ready();
    (void)target.HearFrame();
    target.SendLoaded(16, 0);
    (void)target.channel.HearAbort();
    target.channel.Hang();
  });
  SourceOptions options = SourceOptionsFor(target.port);
  options.lanes = 1;
  options.packet_bytes = 8;
  options.vm.save_config = [](size_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return std::string("the VMM's");
  };
  RecordingObserver observer;
  SourceSession session(options, devices.pointers(), observer);
  const SessionReport report = session.Run();
  thread.join();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()),
              AnyOf(HasSubstr("has loaded what was not sent"),
                    HasSubstr("16 bytes with 00000000 were loaded")));
  devices.ExpectAllIn(DeviceState::kRunning);
}

// After its Commit the source can't know whether the devices run there: it never resumes them.
TEST(SourceHandoverTest, ATargetThatVanishesAfterTheCommitLeavesTheSourceStopped) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(
      devices, target,
      [&](RawTarget& t) {
        t.Ready();
        t.SendLoaded(16, Digest(t));
        t.HearCommit();
        t.listener.Reset();
        t.channel.Hang();
      },
      std::chrono::milliseconds(500));
  EXPECT_EQ(report.outcome, SessionOutcome::kInDoubt) << report.status;
  EXPECT_FALSE(report.status.ok());
  devices.ExpectAllIn(DeviceState::kStop);
}

// One that lives and does not answer is no better.
TEST(SourceHandoverTest, ATargetThatDoesNotAnswerTheCommitLeavesTheSourceStopped) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(
      devices, target,
      [&](RawTarget& t) {
        t.Ready();
        t.SendLoaded(16, Digest(t));
        t.HearCommit();
        EXPECT_FALSE(t.channel.Receive().has_value());  // pings meanwhile
      },
      std::chrono::milliseconds(1500));
  EXPECT_EQ(report.outcome, SessionOutcome::kInDoubt) << report.status;
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("did not say"));
  devices.ExpectAllIn(DeviceState::kStop);
}

// Contact lost after Commit: the source comes back and asks, with the same Commit, until it is
// told.
class LostAfterCommitTest : public testing::TestWithParam<bool> {};

TEST_P(LostAfterCommitTest, TheSourceComesBackAndObeysTheAnswer) {
  const bool done = GetParam();
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [&](RawTarget& t) {
    t.Ready();
    t.SendLoaded(16, Digest(t));
    t.HearCommit();
    t.channel.Hang();
    for (int lost = 0; lost < 2; ++lost) {
      t.channel = RawChannel(t.Accept());
      if (lost == 0) t.channel.Hang();  // and again, before it could say anything
    }
    t.channel.SayPreface();
    t.channel.HearPreface();
    const auto again = t.channel.Receive();
    ASSERT_TRUE(again.has_value() && again->has_commit());
    EXPECT_EQ(again->commit().session_id(), t.session_id);
    devices.ExpectAllIn(DeviceState::kStop);
    control::ControlMessage answer;
    if (done) {
      answer.mutable_done();
    } else {
      answer.mutable_rolled_back()->set_reason("the device would not start");
    }
    t.channel.Send(answer);
    const auto forget = t.channel.Receive();
    EXPECT_TRUE(forget.has_value() && forget->has_forget());
  });
  EXPECT_EQ(report.outcome, done ? SessionOutcome::kDone : SessionOutcome::kRolledBack);
  devices.ExpectAllIn(done ? DeviceState::kStop : DeviceState::kRunning);
  if (!done) {
    EXPECT_THAT(std::string(report.status.message()), HasSubstr("the device would not start"));
  }
}

INSTANTIATE_TEST_SUITE_P(Answers, LostAfterCommitTest, testing::Bool(),
                         [](const auto& answer) { return answer.param ? "Done" : "RolledBack"; });

}  // namespace
}  // namespace godwit
