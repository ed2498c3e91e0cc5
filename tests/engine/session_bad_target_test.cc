// Goal: nothing that a target can say before the handover makes a source give up its device: it
// runs again, with one line that says what was wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>

#include <thread>

#include "godwit/ping.h"
#include "tests/engine/raw_target.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::HasSubstr;

constexpr char kSpec[] = "soft:size=16,seed=7";

struct Lie {
  const char* name;
  void (*act)(RawTarget& target);
  std::vector<const char*> words;
};

class BadTargetTest : public testing::TestWithParam<Lie> {};

TEST_P(BadTargetTest, TheDeviceRunsAgainAtTheSource) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [](RawTarget& t) {
    GetParam().act(t);
    (void)t.channel.HearAbort();
    t.channel.Hang();
  });
  EXPECT_FALSE(report.status.ok());
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack) << report.status;
  devices.ExpectAllIn(DeviceState::kRunning);
  const std::string message(report.status.message());
  EXPECT_EQ(message.find('\n'), std::string::npos);
  for (const char* word : GetParam().words) EXPECT_THAT(message, HasSubstr(word));
}

const std::vector<Lie> kLies = {
    {"WindowTooSmall",
     [](RawTarget& t) {
       t.welcome.mutable_welcome()->set_window_packets(3);
       t.Greet();
     },
     {"window of 3"}},
    {"WindowTooLarge",
     [](RawTarget& t) {
       t.welcome.mutable_welcome()->set_window_packets(4097);
       t.Greet();
     },
     {"window of 4097"}},
    {"QueueTooSmall",
     [](RawTarget& t) {
       t.welcome.mutable_welcome()->set_queue_packets(0);
       t.Greet();
     },
     {"queue of 0"}},
    {"QueueTooLarge",
     [](RawTarget& t) {
       t.welcome.mutable_welcome()->set_queue_packets(0xffffffff);
       t.Greet();
     },
     {"queue of 4294967295"}},
    {"TransportNotOffered",
     [](RawTarget& t) {
       t.welcome.mutable_welcome()->set_transport(control::TRANSPORT_VERBS);
       t.Greet();
     },
     {"transport"}},
    {"NoTransport",
     [](RawTarget& t) {
       t.welcome.mutable_welcome()->clear_transport();
       t.Greet();
     },
     {"transport"}},
    {"TableOfNone",
     [](RawTarget& t) {
       t.table.mutable_device_table()->clear_devices();
       t.Greet();
       t.AnswerTable();
     },
     {"0 devices"}},
    {"TableOfAnotherKind",
     [](RawTarget& t) {
       t.table.mutable_device_table()->mutable_devices(0)->set_kind("evil\n\x1b[2J");
       t.Greet();
       t.AnswerTable();
     },
     {"kind", "evil??[2J"}},
    {"QueuePairsOverTcp",
     [](RawTarget& t) {
       t.setup.mutable_lane_setup()->add_verbs();
       t.Ready();
     },
     {"queue pairs"}},
    {"RemadeALaneThatThereIsNot",
     [](RawTarget& t) {
       t.Ready();
       control::ControlMessage remade;
       remade.mutable_lane_remade()->set_lane(1);
       t.channel.Send(remade);
     },
     {"lane 1 again", "there is none"}},
    {"AcknowledgesMoreThanWasSent",
     [](RawTarget& t) {
       t.Ready();
       t.SendReceipts({4}, {0});
     },
     {"acknowledges 4", "lane 0"}},
    {"AcknowledgesFarMore",
     [](RawTarget& t) {
       t.Ready();
       t.SendReceipts({~uint64_t{0}}, {0});
     },
     {"acknowledges 281474976710655"}},
    {"LoadedMoreThanWasSent",
     [](RawTarget& t) {
       t.Ready();
       t.SendReceipts({0}, {4});
     },
     {"loaded 4", kSpec}},
    {"ReceiptsForMoreLanes",
     [](RawTarget& t) {
       t.Ready();
       t.SendReceipts({0, 0}, {0});
     },
     {"receipts"}},
    {"ReceiptsForMoreDevices",
     [](RawTarget& t) {
       t.Ready();
       t.SendReceipts({0}, {0, 0});
     },
     {"receipts"}},
    {"LoadedWithAnotherDigest",
     [](RawTarget& t) {
       t.Ready();
       t.SendLoaded(16, Digest(t) ^ 1);
     },
     {kSpec, "CRC-32C"}},
    {"LoadedWithFewerBytes",
     [](RawTarget& t) {
       t.Ready();
       t.SendLoaded(15, Digest(t));
     },
     {kSpec, "16 bytes", "15 bytes"}},
    {"LoadedForMoreDevices",
     [](RawTarget& t) {
       t.Ready();
       t.SendLoaded(16, Digest(t), 2);
     },
     {"loaded"}},
    {"DoneUnasked",
     [](RawTarget& t) {
       t.Ready();
       control::ControlMessage done;
       done.mutable_done();
       t.channel.Send(done);
     },
     {"out of turn"}},
    {"HelloBack",
     [](RawTarget& t) {
       t.Ready();
       control::ControlMessage hello;
       hello.mutable_hello();
       t.channel.Send(hello);
     },
     {"out of turn"}},
    {"DoneForWelcome",
     [](RawTarget& t) {
       t.welcome.mutable_done();
       t.Greet();
     },
     {"welcome", "out of turn"}},
    {"Garbage",
     [](RawTarget& t) {
       t.Ready();
       t.channel.SendRaw(std::string(50, '\xff'));
     },
     {"does not parse"}},
    {"LengthTooLong",
     [](RawTarget& t) {
       t.Ready();
       Say(t.channel.fd(), "\xff\xff\xff\xff");
     },
     {"4294967295 bytes"}},
    {"LengthZero",
     [](RawTarget& t) {
       t.Ready();
       t.channel.SendRaw("");
     },
     {"0 bytes"}},
    {"Abort",
     [](RawTarget& t) {
       t.Ready();
       control::ControlMessage message;
       message.mutable_abort()->set_reason("no\nmore \x1b[31mroom");
       t.channel.Send(message);
     },
     {"no?more ?[31mroom"}},
    {"HangsUpInMidStream",
     [](RawTarget& t) {
       t.Ready();
       (void)t.HearFrame();
       t.channel.Hang();
       t.channel = RawChannel(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)));
     },
     {}},
    {"AnotherProtocol",
     [](RawTarget& t) {
       t.channel = RawChannel(t.Accept());
       Say(t.channel.fd(), "SSH-2.0-OpenSSH_9.2\r\n");
     },
     {"not Godwit"}},
    {"AnotherVersion",
     [](RawTarget& t) {
       t.channel = RawChannel(t.Accept());
       Say(t.channel.fd(), std::string("GODWIT\1\2", 8));
     },
     {"version 2", "speaks 1"}},
};

INSTANTIATE_TEST_SUITE_P(Every, BadTargetTest, testing::ValuesIn(kLies),
                         [](const auto& lie) { return std::string(lie.param.name); });

// Alive at every step and silent all the same.
TEST(SilentTargetTest, ATargetThatOnlyPingsIsGivenUp) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  const Watchdog watchdog("a target that only pings");
  RawTarget target;
  std::thread thread([&] {
    target.channel = RawChannel(target.Accept());
    target.channel.SayPreface();
    target.channel.HearPreface();
    (void)target.channel.HearAbort();
    target.channel.Hang();
  });
  SourceOptions options = SourceOptionsFor(target.port);
  options.answer_timeout = std::chrono::milliseconds(1500);
  RecordingObserver observer;
  SourceSession session(options, devices.pointers(), observer);
  const SessionReport report = session.Run();
  thread.join();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("welcome did not come in 1500 ms"));
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST(SilentTargetTest, ATargetThatLoadsNothingMoreIsGivenUp) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  const Watchdog watchdog("a target that loads nothing");
  RawTarget target;
  std::thread thread([&] {
    target.Ready();
    (void)target.channel.HearAbort();
    target.channel.Hang();
  });
  SourceOptions options = SourceOptionsFor(target.port);
  options.lanes = 1;
  options.progress_timeout = std::chrono::milliseconds(1500);
  RecordingObserver observer;
  SourceSession session(options, devices.pointers(), observer);
  const SessionReport report = session.Run();
  thread.join();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("nothing more was loaded"));
  devices.ExpectAllIn(DeviceState::kRunning);
}

// Hung up on without a word, as by a target whose places strangers have all taken.
class NoRoomTest : public testing::Test {
 protected:
  void HangUpOn(RawTarget& target, int callers) {
    for (int i = 0; i < callers; ++i, ++came_) target.Accept().Reset();
  }
  // Until nobody has come for as long as the longest wait between two tries, and more.
  void HangUpOnAll(RawTarget& target) {
    pollfd next = {target.listener.get(), POLLIN, 0};
    while (::poll(&next, 1, 2000) == 1) HangUpOn(target, 1);
  }

  int came_ = 0;
};

TEST_F(NoRoomTest, TheSourceTriesAgain) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [this](RawTarget& t) {
    HangUpOn(t, 5);
    t.Greet();
    control::ControlMessage message;
    message.mutable_abort()->set_reason("heard at last");
    t.channel.Send(message);
  });
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("heard at last"));
  EXPECT_EQ(came_, 5);
}

TEST_F(NoRoomTest, ButNotWithoutEnd) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [this](RawTarget& t) { HangUpOnAll(t); });
  EXPECT_EQ(came_, 6);
  EXPECT_EQ(report.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("it had not welcomed us"));
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(NoRoomTest, NorOnceTheTargetHasSpoken) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  const SessionReport report = RunSource(devices, target, [this](RawTarget& t) {
    RawChannel channel = t.AcceptChannel();
    ++came_;
    channel.SayPreface();
    channel.HearPreface();
    channel.Hang();
    HangUpOnAll(t);
  });
  EXPECT_EQ(came_, 1);
  EXPECT_EQ(report.status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(NoRoomTest, NorOfATargetThatOnlySaysNothing) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  SourceOptions options;
  options.answer_timeout = std::chrono::milliseconds(300);
  const SessionReport report = RunSource(
      devices, target,
      [this](RawTarget& t) {
        t.channel = RawChannel(t.Accept());
        ++came_;
        HangUpOnAll(t);
      },
      options);
  EXPECT_EQ(came_, 1);
  EXPECT_EQ(report.status.code(), absl::StatusCode::kDeadlineExceeded) << report.status;
}

TEST_F(NoRoomTest, APingTriesAgainToo) {
  const Watchdog watchdog("a ping that is hung up on");
  RawTarget target;
  std::thread thread([&] { HangUpOnAll(target); });
  PingOptions options;
  options.to = absl::StrCat("127.0.0.1:", target.port);
  const auto report = Ping(options);
  thread.join();
  EXPECT_EQ(came_, 6);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("it had not welcomed us"));
}

}  // namespace
}  // namespace godwit
