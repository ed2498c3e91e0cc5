// Goal: nothing that a target can answer makes a source give up its device: it runs again, with one
// line that says what was wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>

#include "tests/engine/raw_peer.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr char kSpec[] = "soft:size=16,seed=7";

// A target whose every answer a test may change, in the order of docs/wire-format.md, section 4.
struct RawTarget {
  RawTarget() {
    listener.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    socklen_t bytes = sizeof(address);
    EXPECT_EQ(::bind(listener.get(), any, bytes), 0);
    EXPECT_EQ(::listen(listener.get(), 16), 0);
    EXPECT_EQ(::getsockname(listener.get(), any, &bytes), 0);
    port = ntohs(address.sin_port);
    welcome.mutable_welcome()->set_window_packets(4);
    welcome.mutable_welcome()->set_queue_packets(4);
    welcome.mutable_welcome()->set_transport(control::TRANSPORT_TCP);
    control::DeviceTable::Device& row = *table.mutable_device_table()->add_devices();
    row.set_name("soft");
    row.set_kind("soft");
    setup.mutable_lane_setup();
  }

  UniqueFd Accept() { return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

  void Greet() {
    channel = RawChannel(Accept());
    channel.SayPreface();
    channel.HearPreface();
    const auto hello = channel.Receive();
    EXPECT_TRUE(hello.has_value() && hello->has_hello());
    channel.Send(welcome);
  }
  void AnswerTable() {
    (void)channel.Receive();
    channel.Send(table);
  }
  void AcceptLane() {
    const auto theirs = channel.Receive();
    EXPECT_TRUE(theirs.has_value() && theirs->has_lane_setup());
    lane = Accept();
    const std::string preface = Hear(lane.get(), 28);
    EXPECT_EQ(preface.substr(0, 8), "GODWITLN");
    EXPECT_EQ(preface.substr(24), wire::BigEndian(0, 4));
    channel.Send(setup);
  }
  // Up to step 6: the source's frames are on their way.
  void Ready() {
    Greet();
    AnswerTable();
    AcceptLane();
  }
  // The source's Commit, which comes when its devices stand and after it has said so.
  void HearCommit() {
    const auto stopping = channel.Receive();
    EXPECT_TRUE(stopping.has_value() && stopping->has_stopping());
    const auto commit = channel.Receive();
    EXPECT_TRUE(commit.has_value() && commit->has_commit());
    if (commit.has_value()) session_id = commit->commit().session_id();
  }
  std::string HearFrame() {
    const std::string length = Hear(lane.get(), 4);
    return Hear(lane.get(), wire::Number(length));
  }
  // The whole stream: two packets of eight bytes and the config packet.
  std::vector<wire::Frame> HearFrames() {
    std::vector<wire::Frame> frames;
    for (int i = 0; i < 3; ++i) {
      const std::string message = HearFrame();
      if (message.size() < wire::kHeaderBytes) break;
      EXPECT_EQ(wire::Encode(wire::Decode(message)), message);
      frames.push_back(wire::Decode(message));
    }
    return frames;
  }
  void SendReceipts(const std::vector<uint64_t>& lanes, const std::vector<uint32_t>& devices) {
    control::ControlMessage message;
    message.mutable_receipts();
    for (const uint64_t packets : lanes) message.mutable_receipts()->add_lane_packets(packets);
    for (const uint32_t packets : devices) message.mutable_receipts()->add_device_packets(packets);
    for (const uint32_t packets : devices) message.mutable_receipts()->add_device_bytes(packets);
    channel.Send(message);
  }
  void SendLoaded(uint64_t bytes, uint32_t crc, int devices = 1) {
    control::ControlMessage message;
    message.mutable_loaded();
    for (int i = 0; i < devices; ++i) {
      control::Loaded::Device& row = *message.mutable_loaded()->add_devices();
      row.set_bytes(bytes);
      row.set_crc32c(crc);
      row.set_content_verified(true);
    }
    channel.Send(message);
  }

  UniqueFd listener;
  uint16_t port = 0;
  RawChannel channel;
  UniqueFd lane;
  control::ControlMessage welcome;
  control::ControlMessage table;
  control::ControlMessage setup;
  std::string session_id;  // from Commit
};

// Runs a real source against what `target` does on a thread of its own.
SessionReport RunSource(const Devices& devices, RawTarget& target,
                        const std::function<void(RawTarget&)>& act,
                        std::chrono::milliseconds resolve_timeout = std::chrono::seconds(60)) {
  const Watchdog watchdog("a source and its bad target");
  std::thread thread([&] { act(target); });
  SourceOptions options = SourceOptionsFor(target.port);
  options.lanes = 1;
  options.packet_bytes = 8;
  options.resolve_timeout = resolve_timeout;
  RecordingObserver observer;
  SourceSession session(options, devices.pointers(), observer);
  SessionReport report = session.Run();
  thread.join();
  return report;
}

TEST(BadTargetHandoverTest, ToAGoodOneTheSourceHandsOver) {
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
TEST(BadTargetHandoverTest, TheLanesStayUntilTheDevicesRunAtTheTarget) {
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
TEST(BadTargetHandoverTest, LoadedThatComesWhileADeviceStopsIsLookedAtWhenItStands) {
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

uint32_t Digest(RawTarget& t) { return t.HearFrames().back().crc_before; }

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
     {"acknowledges 18446744073709551615"}},
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
    {"ClosesALane",
     [](RawTarget& t) {
       t.Ready();
       t.lane.Reset();
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
     {"version 258", "speaks 1"}},
};

INSTANTIATE_TEST_SUITE_P(Every, BadTargetTest, testing::ValuesIn(kLies),
                         [](const auto& lie) { return std::string(lie.param.name); });

// After its Commit the source can't know whether the devices run there: it never resumes them.
TEST(BadTargetHandoverTest, ATargetThatVanishesAfterTheCommitLeavesTheSourceStopped) {
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
TEST(BadTargetHandoverTest, ATargetThatDoesNotAnswerTheCommitLeavesTheSourceStopped) {
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

// Alive at every step and silent all the same.
TEST(BadTargetHandoverTest, ATargetThatOnlyPingsIsGivenUp) {
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

TEST(BadTargetHandoverTest, ATargetThatLoadsNothingMoreIsGivenUp) {
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
