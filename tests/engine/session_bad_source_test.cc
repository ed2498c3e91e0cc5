// Goal: no frame that a source can send, and no byte at which it can stop, does more to a target
// than cost a lane (damage) or end its session (a lie), with one line that says where and what; its
// device is put back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "tests/engine/raw_peer.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

TargetOptions SmallTarget() {
  TargetOptions options = RunningTarget::DefaultOptions();
  options.arena_bytes = 0;  // the minimum: a window of 4
  return options;
}

void ExpectRolledBack(RunningTarget& target, const Devices& devices) {
  const SessionReport& report = target.Report();
  EXPECT_FALSE(report.status.ok());
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack) << report.status;
  devices.ExpectAllIn(DeviceState::kRunning);
  for (const DeviceReport& device : report.devices) EXPECT_FALSE(device.content_verified);
  EXPECT_FALSE(devices.pointers()[0]->content_verified());
}

TEST(BadSourceTest, WithRightFramesTheTargetRuns) {
  const Watchdog watchdog("a target with a good source");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), SmallTarget());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  EXPECT_EQ(source.window_packets, 4U);
  Say(source.lanes[0].get(), OnTheWire(TheFrames()));
  std::optional<control::ControlMessage> message = source.channel.Receive();
  while (message.has_value() && message->has_receipts()) message = source.channel.Receive();
  ASSERT_TRUE(message.has_value() && message->has_loaded());
  EXPECT_EQ(message->loaded().devices(0).bytes(), kStreamBytes);
  EXPECT_EQ(message->loaded().devices(0).crc32c(), wire::Crc32c(TheStream()));
  EXPECT_TRUE(message->loaded().devices(0).content_verified());
  control::ControlMessage commit;
  commit.mutable_commit();
  source.channel.Send(commit);
  message = source.channel.Receive();
  EXPECT_TRUE(message.has_value() && message->has_done());
  control::ControlMessage forget;
  forget.mutable_forget();
  source.channel.Send(forget);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
  devices.ExpectAllIn(DeviceState::kRunning);
}

// How the second of the right frames is spoilt, and what the target must say of it.
struct Lie {
  const char* name;
  void (*tell)(wire::Frame& frame);
  std::vector<const char*> words;
  bool costs_the_lane = false;  // and no more: it may have come on the way
};

// What the target says of it, on the control channel.
std::string Complaint(RawSource& source, const Lie& lie) {
  return lie.costs_the_lane ? source.channel.HearLaneDown() : source.channel.HearAbort();
}

class BadFrameTest : public testing::TestWithParam<Lie> {};

TEST_P(BadFrameTest, IsToldWithWhereAndWhat) {
  const Watchdog watchdog(GetParam().name);
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), SmallTarget());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  std::vector<wire::Frame> frames = TheFrames();
  GetParam().tell(frames[1]);
  Say(source.lanes[0].get(), OnTheWire(frames));
  const std::string told = Complaint(source, GetParam());
  source.channel.Hang();
  ExpectRolledBack(target, devices);
  const std::string message(target.Report().status.message());
  EXPECT_THAT(message, HasSubstr(told));  // the source hears the same line
  EXPECT_EQ(message.find('\n'), std::string::npos);
  for (const char* word : GetParam().words) EXPECT_THAT(told, HasSubstr(word));
}

const std::vector<Lie> kLies = {
    {"Magic",
     [](wire::Frame& f) { f.magic = 0x48545450; },
     {"lane 0", "magic", "0x48545450"},
     true},
    {"FrameVersion", [](wire::Frame& f) { f.version = 2; }, {"lane 0", "frame version", "2"}},
    {"Type", [](wire::Frame& f) { f.type = 0; }, {"lane 0", "type", "0"}},
    {"PacketVersion",
     [](wire::Frame& f) { f.packet_version = 1; },
     {"lane 0", "packet version", "1"}},
    {"Flags", [](wire::Frame& f) { f.flags = 2; }, {"lane 0", "flags", "0x2"}},
    {"Reserved", [](wire::Frame& f) { f.reserved[0] = 1; }, {"lane 0", "reserved", "44"}},
    {"HeaderCrc", [](wire::Frame& f) { f.header_crc = 1; }, {"lane 0", "header CRC"}, true},
    {"PayloadBytesMore",
     [](wire::Frame& f) { f.payload_bytes = 9; },
     {"lane 0", "9 payload bytes", "8"},
     true},
    {"PayloadBytesHuge",
     [](wire::Frame& f) { f.payload_bytes = 0xffffffff; },
     {"lane 0", "4294967295"},
     true},
    {"PayloadEmpty", [](wire::Frame& f) { f.payload.clear(); }, {"lane 0", "packet 1", "0 bytes"}},
    {"PayloadOneOverTheLimit",
     [](wire::Frame& f) { f.payload += "x"; },
     {"lane 0", "packet 1", "9 bytes", "1 to 8"}},
    {"DeviceOnePast", [](wire::Frame& f) { f.device = 1; }, {"lane 0", "device 1", "1"}},
    {"DeviceHuge", [](wire::Frame& f) { f.device = 0xffff; }, {"lane 0", "device 65535"}},
    {"LaneSequenceAhead",
     [](wire::Frame& f) { f.lane_sequence = 2; },
     {"lane 0", "lane sequence", "2", "1"},
     true},
    {"LaneSequenceAgain",
     [](wire::Frame& f) { f.lane_sequence = 0; },
     {"lane 0", "lane sequence", "0", "1"},
     true},
    {"IndexPastTheWindow",
     [](wire::Frame& f) { f.index = 100; },
     {"lane 0", "device 0", "index 100", "window"}},
    {"IndexLast", [](wire::Frame& f) { f.index = 0xfffffffe; }, {"lane 0", "index 4294967294"}},
    {"IndexInvalid", [](wire::Frame& f) { f.index = 0xffffffff; }, {"lane 0", "0xffffffff"}},
    {"PayloadDamaged",
     [](wire::Frame& f) { f.payload[3] ^= 1; },
     {"lane 0", "device 0", "packet 1", "CRC"},
     true},
    {"CrcAfter", [](wire::Frame& f) { f.crc_after ^= 1; }, {"lane 0", "packet 1", "CRC"}, true},
    {"ConfigCrcInData",
     [](wire::Frame& f) { f.config_crc = 1; },
     {"lane 0", "packet 1", "CRC"},
     true},
    {"CrcChainGap",
     [](wire::Frame& f) {
       f.crc_before ^= 1;
       f.crc_after = wire::Crc32c(f.payload, f.crc_before);
     },
     {kSpec, "packet 1", "CRC"}},
    {"StreamOffset", [](wire::Frame& f) { f.stream_offset = 7; }, {kSpec, "packet 1", "byte 7"}},
    {"StreamOffsetHuge",
     [](wire::Frame& f) { f.stream_offset = ~uint64_t{0}; },
     {"lane 0", "stream offset", "18446744073709551615"}},
    // The device sees half a stream and the worker a packet too many: who is first has the word.
    {"ConfigTooEarly",
     [](wire::Frame& f) {
       const std::string half = TheStream().substr(0, 8);
       f = wire::ConfigFrame(0, 1, half, kConfig);
       f.lane_sequence = 1;
     },
     {"device"}},
    {"ConfigTooShort",
     [](wire::Frame& f) {
       f = wire::ConfigFrame(0, 1, TheStream().substr(0, 8), "");
       f.payload.resize(15);
       f.config_crc = wire::Crc32c(f.payload);
       f.lane_sequence = 1;
     },
     {"lane 0", "packet 1", "15 bytes", "16"}},
    {"ConfigMarks",
     [](wire::Frame& f) {
       f = wire::ConfigFrame(0, 1, TheStream().substr(0, 8), "");
       f.payload[0] = 0;
       f.config_crc = wire::Crc32c(f.payload);
       f.lane_sequence = 1;
     },
     {""}},
};

INSTANTIATE_TEST_SUITE_P(Every, BadFrameTest, testing::ValuesIn(kLies),
                         [](const auto& lie) { return std::string(lie.param.name); });

// The config packet's own lies, which no frame after it covers up.
class BadConfigTest : public testing::TestWithParam<Lie> {};

TEST_P(BadConfigTest, IsToldWithWhereAndWhat) {
  const Watchdog watchdog(GetParam().name);
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), SmallTarget());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  std::vector<wire::Frame> frames = TheFrames();
  GetParam().tell(frames[2]);
  Say(source.lanes[0].get(), OnTheWire(frames));
  (void)Complaint(source, GetParam());
  source.channel.Hang();
  ExpectRolledBack(target, devices);
  for (const char* word : GetParam().words) {
    EXPECT_THAT(std::string(target.Report().status.message()), HasSubstr(word));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Every, BadConfigTest,
    testing::Values(
        Lie{"Crc", [](wire::Frame& f) { f.config_crc ^= 1; }, {"packet 2", "CRC"}, true},
        Lie{"CrcAfter", [](wire::Frame& f) { f.crc_after ^= 1; }, {"packet 2", "CRC"}, true},
        Lie{"Digest",
            [](wire::Frame& f) { f.crc_before = f.crc_after = 1; },
            {kSpec, "packet 2", "0x00000001"}},
        Lie{"Length", [](wire::Frame& f) { f.stream_offset = 15; }, {kSpec, "byte 15"}},
        Lie{"Marks",
            [](wire::Frame& f) {
              f.payload[7] = 0;
              f.config_crc = wire::Crc32c(f.payload);
            },
            {kSpec, "marked"}},
        Lie{"AnotherDevices",
            [](wire::Frame& f) {
              f = wire::ConfigFrame(0, 2, TheStream(), "godwit-soft 1 size=16 seed=8");
              f.lane_sequence = 2;
            },
            {kSpec, "seed=8"}}),
    [](const auto& lie) { return std::string(lie.param.name); });

// What comes in place of a frame's length.
class BadLengthTest : public testing::TestWithParam<uint32_t> {};

TEST_P(BadLengthTest, CostsTheLaneWithWhereAndWhat) {
  const Watchdog watchdog(absl::StrCat("length ", GetParam()));
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), SmallTarget());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  source.SendFrame(0, TheFrames()[0]);
  Say(source.lanes[0].get(), wire::BigEndian(GetParam(), 4) + std::string(100, 'x'));
  EXPECT_THAT(source.channel.HearLaneDown(), HasSubstr("lane 0"));
  source.channel.Hang();
  ExpectRolledBack(target, devices);
  EXPECT_THAT(std::string(target.Report().status.message()),
              AllOf(HasSubstr("lane 0"), HasSubstr(absl::StrCat(GetParam()))));
}

INSTANTIATE_TEST_SUITE_P(Every, BadLengthTest,
                         testing::Values(0U, 1U, 79U, 80U + 65'552U + 1U, 0x80000000U, 0xffffffffU,
                                         0x47455420U));  // "GET "

TEST(BadSourceTest, TheLanesCloseWithoutAConfigPacket) {
  const Watchdog watchdog("no config packet");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), SmallTarget());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  source.SendFrame(0, TheFrames()[0]);
  source.SendFrame(0, TheFrames()[1]);
  source.lanes.clear();
  EXPECT_THAT(source.channel.HearLaneDown(), HasSubstr("before the end"));
  source.channel.Hang();
  ExpectRolledBack(target, devices);
  EXPECT_THAT(std::string(target.Report().status.message()),
              AllOf(HasSubstr("lane 0"), HasSubstr("before the end")));
}

TEST(BadSourceTest, DataAfterTheConfigPacketIsRefusedOrTooLate) {
  const Watchdog watchdog("data after config");
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), SmallTarget());
  RawSource source(target.Port());
  ASSERT_TRUE(source.OpenLanes());
  std::vector<wire::Frame> frames = TheFrames();
  std::swap(frames[0], frames[2]);  // so that nothing can be loaded yet
  frames[1] = wire::DataFrame(0, 3, TheStream(), "more");
  for (size_t i = 0; i < frames.size(); ++i) frames[i].lane_sequence = i;
  Say(source.lanes[0].get(), OnTheWire(frames));
  (void)source.channel.HearAbort();
  source.channel.Hang();
  ExpectRolledBack(target, devices);
  EXPECT_THAT(std::string(target.Report().status.message()),
              AllOf(HasSubstr("index 3"), HasSubstr("after the config packet")));
}

// The lane's bytes end after `bytes`: an error, whatever `bytes` is, that says where.
void CutAfter(const std::string& lane_bytes, size_t bytes) {
  SCOPED_TRACE(absl::StrCat("cut after ", bytes, " of ", lane_bytes.size(), " bytes"));
  const Devices devices({kSpec}, DeviceRole::kTarget);
  RunningTarget target(devices.pointers(), SmallTarget());
  RawSource source(target.Port());
  ASSERT_TRUE(source.Greet());
  source.channel.Send(RawSource::Setup());
  UniqueFd lane = ConnectTo(source.port);
  Say(lane.get(), lane_bytes.substr(0, bytes));
  lane.Reset();
  const size_t preface_bytes = source.LanePreface(0).size();
  const std::string told =
      bytes < preface_bytes ? source.channel.HearAbort() : source.channel.HearLaneDown();
  source.channel.Hang();
  EXPECT_NE(told, "");
  ExpectRolledBack(target, devices);
  EXPECT_THAT(std::string(target.Report().status.message()),
              AnyOf(HasSubstr("lane 0"), HasSubstr("0 of 1 lanes")));
}

TEST(BadSourceTest, AStreamCutAtAnyByteRollsBack) {
  // Sessions that wait for a lane to come wait eight seconds, so all run side by side.
  constexpr size_t kSideBySide = 48;
  const Watchdog watchdog("streams cut at every byte", std::chrono::seconds(100));
  const std::string lane_bytes =
      "GODWITLN0123456789abcdef" + wire::BigEndian(0, 4) + OnTheWire(TheFrames());
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kSideBySide; ++i) {
    threads.emplace_back([&] {
      for (size_t cut = next++; cut < lane_bytes.size(); cut = next++) CutAfter(lane_bytes, cut);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace godwit
