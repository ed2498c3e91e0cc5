// Goal: whatever happens to the connection at the handover, the target runs the devices or promises
// that it never will, and tells a source that asks.
//
// The source is the test's, byte by byte, so that it can vanish at any step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/engine/raw_peer.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::HasSubstr;

const std::string kSession = "0123456789abcdef";

control::ControlMessage CommitOf(const std::string& session_id) {
  control::ControlMessage message;
  message.mutable_commit()->set_session_id(session_id);
  return message;
}

control::ControlMessage Forget() {
  control::ControlMessage message;
  message.mutable_forget();
  return message;
}

// A target with one device, and its source up to Loaded.
class HandoverTest : public testing::Test {
 protected:
  void Load(TargetOptions options = RunningTarget::DefaultOptions()) {
    options.arena_bytes = 1;
    target_.emplace(devices_.pointers(), options);
    source_.emplace(target_->Port());
    source_->session_id = kSession;
    ASSERT_TRUE(source_->OpenLanes());
    Say(source_->lanes[0].get(), OnTheWire(TheFrames()));
    std::optional<control::ControlMessage> message;
    do message = source_->channel.Receive();
    while (message.has_value() && message->has_receipts());
    ASSERT_TRUE(message.has_value() && message->has_loaded());
  }
  // The connection breaks without an orderly end.
  void Break() {
    const linger at_once = {1, 0};
    ::setsockopt(source_->channel.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    source_->channel.Hang();
  }
  // A new connection on which `first` is the first message.
  RawChannel ComeBackWith(const control::ControlMessage& first) {
    RawChannel channel(ConnectTo(source_->port));
    channel.SayPreface();
    channel.Send(first);
    channel.HearPreface();
    return channel;
  }
  SessionReport& Report() { return target_->Report(); }

  const Watchdog watchdog_{"a handover"};
  const Devices devices_{{kSpec}, DeviceRole::kTarget};
  std::optional<RunningTarget> target_;
  std::optional<RawSource> source_;
};

TEST_F(HandoverTest, ACommitOnANewConnectionIsAsGood) {
  Load();
  Break();
  RawChannel again = ComeBackWith(CommitOf(kSession));
  const auto answer = again.Receive();
  ASSERT_TRUE(answer.has_value() && answer->has_done());
  again.Send(Forget());
  EXPECT_EQ(Report().outcome, SessionOutcome::kDone) << Report().status;
  devices_.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(HandoverTest, StoppingMayBeReadAfterTheLastPacketIsLoaded) {
  Load();
  control::ControlMessage stopping;
  stopping.mutable_stopping();
  source_->channel.Send(stopping);
  source_->channel.Send(CommitOf(kSession));
  const auto answer = source_->channel.Receive();
  ASSERT_TRUE(answer.has_value() && answer->has_done());
  source_->channel.Send(Forget());
  EXPECT_EQ(Report().outcome, SessionOutcome::kDone) << Report().status;
  devices_.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(HandoverTest, StoppingComesOnce) {
  Load();
  control::ControlMessage stopping;
  stopping.mutable_stopping();
  source_->channel.Send(stopping);
  source_->channel.Send(stopping);
  EXPECT_THAT(source_->channel.HearAbort(), HasSubstr("out of turn"));
  source_->channel.Hang();
  EXPECT_EQ(Report().outcome, SessionOutcome::kRolledBack);
  devices_.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(HandoverTest, ATargetThatRunsTheDevicesSaysSoAsOftenAsItIsAsked) {
  Load();
  source_->channel.Send(CommitOf(kSession));
  Break();  // Done may be lost
  for (int asked = 0; asked < 3; ++asked) {
    RawChannel again = ComeBackWith(CommitOf(kSession));
    const auto answer = again.Receive();
    ASSERT_TRUE(answer.has_value() && answer->has_done()) << "asked " << asked << " times before";
    again.Send(CommitOf(kSession));  // doubled on the way
    const auto repeated = again.Receive();
    ASSERT_TRUE(repeated.has_value() && repeated->has_done());
    if (asked == 2) again.Send(Forget());
  }
  EXPECT_EQ(Report().outcome, SessionOutcome::kDone) << Report().status;
  devices_.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(HandoverTest, WithoutACommitInTimeItRollsBackAndALateCommitIsTold) {
  TargetOptions options = RunningTarget::DefaultOptions();
  options.commit_timeout = std::chrono::milliseconds(50);
  Load(options);
  // It says Abort, resets, and stays.
  EXPECT_THAT(source_->channel.HearAbort(), HasSubstr("not committed"));
  Break();
  RawChannel again = ComeBackWith(CommitOf(kSession));
  const auto answer = again.Receive();
  ASSERT_TRUE(answer.has_value() && answer->has_rolled_back());
  EXPECT_THAT(answer->rolled_back().reason(), HasSubstr("not committed"));
  again.Send(Forget());
  EXPECT_EQ(Report().outcome, SessionOutcome::kRolledBack);
  devices_.ExpectAllIn(DeviceState::kRunning);  // reset, and nobody's
  EXPECT_FALSE(devices_.pointers()[0]->content_verified());
}

TEST_F(HandoverTest, ACancelledTargetNeverRunsThemAndSaysSo) {
  Load();
  Break();
  target_->session().Cancel();
  RawChannel again = ComeBackWith(CommitOf(kSession));
  const auto answer = again.Receive();
  ASSERT_TRUE(answer.has_value());
  // The Commit may have come first; then it was too late to cancel.
  EXPECT_TRUE(answer->has_rolled_back() || answer->has_done());
  again.Send(Forget());
  EXPECT_EQ(Report().outcome,
            answer->has_done() ? SessionOutcome::kDone : SessionOutcome::kRolledBack);
}

TEST_F(HandoverTest, AnOrderlyEndBeforeCommitNeedsNoWaiting) {
  Load();
  ::shutdown(source_->channel.fd(), SHUT_WR);
  EXPECT_EQ(Report().outcome, SessionOutcome::kRolledBack);
  EXPECT_LT(Report().duration, RunningTarget::DefaultOptions().commit_timeout);
  devices_.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(HandoverTest, NobodyElseCanCommit) {
  Load();
  Break();
  control::ControlMessage hello = source_->Hello();
  for (const auto& first :
       {CommitOf("fedcba9876543210"), CommitOf(""), CommitOf(kSession + "0"), Forget(), hello}) {
    RawChannel stranger(ConnectTo(source_->port));
    stranger.SayPreface();
    stranger.Send(first);
    stranger.HearPreface();
    EXPECT_EQ(Hear(stranger.fd(), 1), "") << first.message_case();  // hung up on, unanswered
  }
  RawChannel silent(ConnectTo(source_->port));  // and this one holds nobody up
  RawChannel again = ComeBackWith(CommitOf(kSession));
  const auto answer = again.Receive();
  ASSERT_TRUE(answer.has_value() && answer->has_done());
  again.Send(Forget());
  EXPECT_EQ(Report().outcome, SessionOutcome::kDone);
}

TEST_F(HandoverTest, AfterOutcomeHoldItEndsByItself) {
  TargetOptions options = RunningTarget::DefaultOptions();
  options.outcome_hold = std::chrono::milliseconds(100);
  Load(options);
  source_->channel.Send(CommitOf(kSession));
  const auto done = source_->channel.Receive();
  ASSERT_TRUE(done.has_value() && done->has_done());
  Break();
  EXPECT_EQ(Report().outcome, SessionOutcome::kDone);
  devices_.ExpectAllIn(DeviceState::kRunning);
}

// The VMM's own calls, on both sides of a whole session.
class VmTest : public testing::Test {
 protected:
  SessionReport Move() {
    TargetOptions target_options = RunningTarget::DefaultOptions();
    target_options.vm.start_vcpus = [this] {
      target_.ExpectAllIn(DeviceState::kRunning);
      return Note("start at target", start_at_target_);
    };
    target_options.vm.load_config = [this](size_t device, absl::string_view config) {
      return Note(absl::StrCat("load ", device, " ", config), absl::OkStatus());
    };
    RunningTarget running(target_.pointers(), target_options);
    SourceOptions options = SourceOptionsFor(running.Port());
    options.vm.stop_vcpus = [this] {
      source_.ExpectAllIn(DeviceState::kRunning);
      return Note("stop", stop_);
    };
    options.vm.start_vcpus = [this] {
      source_.ExpectAllIn(DeviceState::kRunning);
      return Note("start again", absl::OkStatus());
    };
    options.vm.save_config = [this](size_t device) -> absl::StatusOr<std::string> {
      (void)Note(absl::StrCat("save ", device), absl::OkStatus());
      return absl::StrCat("blob ", device);
    };
    RecordingObserver observer;
    SourceSession session(options, source_.pointers(), observer);
    SessionReport report = session.Run();
    target_report_ = running.Report();
    return report;
  }
  absl::Status Note(std::string call, absl::Status status) {
    std::lock_guard<std::mutex> lock(mutex_);
    calls_.push_back(std::move(call));
    return status;
  }

  const Watchdog watchdog_{"a VMM's session"};
  const Devices source_{{kSpec}, DeviceRole::kSource};
  const Devices target_{{kSpec}, DeviceRole::kTarget};
  absl::Status stop_;
  absl::Status start_at_target_;
  SessionReport target_report_;
  std::mutex mutex_;
  std::vector<std::string> calls_;
};

TEST_F(VmTest, IsStoppedFirstAndStartedLastAndMovesItsOwnConfig) {
  const SessionReport report = Move();
  EXPECT_EQ(report.outcome, SessionOutcome::kDone) << report.status;
  EXPECT_THAT(calls_, testing::ElementsAre("stop", "save 0", "load 0 blob 0", "start at target"));
}

TEST_F(VmTest, ThatDoesNotStopIsNotMoved) {
  stop_ = absl::InternalError("a vCPU hangs");
  const SessionReport report = Move();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("a vCPU hangs"));
  EXPECT_THAT(calls_, testing::ElementsAre("stop", "start again"));
  source_.ExpectAllIn(DeviceState::kRunning);
}

// The VM is the target's by then: the source must not take it back.
TEST_F(VmTest, ThatDoesNotStartAtTheTargetIsTheTargetsAllTheSame) {
  start_at_target_ = absl::InternalError("no such machine");
  const SessionReport report = Move();
  EXPECT_EQ(report.outcome, SessionOutcome::kDone);
  EXPECT_EQ(target_report_.outcome, SessionOutcome::kDone);  // with an error
  EXPECT_THAT(std::string(target_report_.status.message()), HasSubstr("no such machine"));
  source_.ExpectAllIn(DeviceState::kStop);
}

}  // namespace
}  // namespace godwit
