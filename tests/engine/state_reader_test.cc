// Goal: however a device cuts its stream, the packets put end to end are the stream, and their
// headers say so; an error is final; and no read outlives its reader.
#include "engine/state_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "tests/engine/byte_sources.h"
#include "tests/engine/packets.h"

namespace godwit {
namespace {

using testing::HasSubstr;

constexpr uint32_t kChainPackets = 4;
constexpr size_t kPacketBytes = 4096;
constexpr uint16_t kDevice = 5;
constexpr size_t kArenaBuffers = 3 * kChainPackets + 1;

std::string RandomBytes(size_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// With and without the arena as a fixed buffer: both ways of reading are in use.
class StateReaderTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    auto ring = IoRing::Create(16);
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    auto arena = Arena::Create(kArenaBuffers, kConfigPayloadBytesMax);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    if (GetParam()) {
      const absl::Status registered = ring_->RegisterArena(*arena_);
      if (!registered.ok()) GTEST_SKIP() << "no fixed buffers here: " << registered;
    }
  }
  void TearDown() override {
    if (reader_ != nullptr) {
      CancelReader();
      reader_.reset();
    }
    packets_.clear();
    if (arena_ != nullptr) {
      EXPECT_EQ(arena_->free_count(), kArenaBuffers);
    }
    ring_.reset();
  }

  void Read(UniqueFd fd, size_t packet_bytes = kPacketBytes) {
    reader_ = std::make_unique<StateReader>(kDevice, "soft:a", std::move(fd), packet_bytes,
                                            kChainPackets, *ring_, *arena_);
  }
  // The cap is no time limit that a test means; it ends a hang.
  bool RunUntil(const std::function<bool()>& done) {
    for (int round = 0; round < 30'000; ++round) {
      if (done()) return true;
      ring_->Wait(std::chrono::milliseconds(1));
    }
    return false;
  }
  void CancelReader() {
    EXPECT_TRUE(RunUntil([this] {
      reader_->Cancel();
      return reader_->idle();
    })) << "reads go on after Cancel()";
  }
  // Checks each packet against the stream so far and keeps its bytes.
  void Take(Packet packet) {
    const wire::Frame expected =
        wire::DataFrame(kDevice, static_cast<uint32_t>(packets_.size()), "", PayloadOf(packet));
    ASSERT_EQ(packet.header.device, kDevice);
    ASSERT_EQ(packet.header.index, expected.index);
    ASSERT_EQ(packet.header.payload_bytes, expected.payload.size());
    ASSERT_EQ(packet.header.stream_offset, stream_.size());
    ASSERT_EQ(packet.header.crc_before, stream_crc_);
    stream_crc_ = wire::Crc32c(expected.payload, stream_crc_);
    ASSERT_EQ(packet.header.crc_after, stream_crc_);
    ASSERT_EQ(packet.header.config_crc, 0U);
    ASSERT_EQ(packet.header.flags, 0U);
    stream_ += expected.payload;
    packets_.push_back(expected.payload);
  }
  // To the end or the error. Each packet is popped at once.
  void ReadAll() {
    const bool ended = RunUntil([this] {
      reader_->Pump();
      while (reader_->has_packet()) {
        EXPECT_EQ(reader_->front().header.index, packets_.size());
        Take(reader_->PopPacket());
      }
      return reader_->finished() || !reader_->status().ok();
    });
    EXPECT_TRUE(ended) << "the stream never ended";
  }
  void ExpectWhole(absl::string_view stream) {
    EXPECT_TRUE(reader_->status().ok()) << reader_->status();
    EXPECT_TRUE(stream_ == stream) << stream_.size() << " bytes read of " << stream.size();
    EXPECT_EQ(reader_->stream_bytes(), stream.size());
    EXPECT_EQ(reader_->stream_crc(), wire::Crc32c(stream));
    EXPECT_EQ(reader_->packets(), packets_.size());
  }

  std::unique_ptr<IoRing> ring_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<StateReader> reader_;
  std::vector<std::string> packets_;
  std::string stream_;
  uint32_t stream_crc_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Buffers, StateReaderTest, testing::Bool(),
                         [](const auto& fixed) { return fixed.param ? "Fixed" : "Plain"; });

TEST_P(StateReaderTest, PacketsAreTheStreamHoweverADeviceCutsIt) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  const std::string stream = RandomBytes(60'000, seed);
  for (const size_t cut : {size_t{1}, size_t{7}, size_t{4095}, kPacketBytes, size_t{0}}) {
    SCOPED_TRACE(absl::StrCat("cut ", cut, " (0: at random)"));
    for (const int kind : {0, int{SOCK_STREAM}, int{SOCK_SEQPACKET}}) {
      packets_.clear();
      stream_.clear();
      stream_crc_ = 0;
      FdPair pair = kind == 0 ? MakePipe() : MakeSocketPair(kind);
      // Single bytes take a switch of threads each: fewer of them.
      const std::string sent = stream.substr(0, cut == 1 ? 2'000 : stream.size());
      std::vector<std::string> cuts;
      std::mt19937 random(seed);
      for (size_t at = 0; at < sent.size();) {
        cuts.push_back(sent.substr(at, cut != 0 ? cut : 1 + random() % kPacketBytes));
        at += cuts.back().size();
      }
      std::thread device([&cuts, fd = std::move(pair.write)] {
        for (const std::string& bytes : cuts) WriteOut(fd.get(), bytes);
      });
      Read(std::move(pair.read));
      ReadAll();
      device.join();
      ExpectWhole(sent);
      // Where reads keep the device's cuts, so do packets: a short read makes a short packet.
      if (kind == SOCK_SEQPACKET) {
        EXPECT_EQ(packets_, cuts);
      }
      reader_.reset();
    }
  }
}

TEST_P(StateReaderTest, ReadsAFileInItsOrder) {
  const std::string path = absl::StrCat(testing::TempDir(), "/godwit-reader-", ::getpid());
  for (const size_t bytes : {size_t{0}, size_t{1}, kPacketBytes - 1, kPacketBytes, kPacketBytes + 1,
                             size_t{50} * kPacketBytes + 17}) {
    SCOPED_TRACE(bytes);
    packets_.clear();
    stream_.clear();
    stream_crc_ = 0;
    const std::string stream = RandomBytes(bytes, 1);
    std::ofstream(path, std::ios::binary | std::ios::trunc) << stream;
    Read(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
    ReadAll();
    ExpectWhole(stream);
    EXPECT_EQ(packets_.size(), (bytes + kPacketBytes - 1) / kPacketBytes);
    reader_.reset();
  }
  std::filesystem::remove(path);
}

TEST_P(StateReaderTest, PacketsOfOneByteWork) {
  FdPair pair = MakePipe();
  const std::string stream = RandomBytes(1'000, 2);
  WriteOut(pair.write.get(), stream);
  pair.write.Reset();
  Read(std::move(pair.read), 1);
  ReadAll();
  ExpectWhole(stream);
  EXPECT_EQ(packets_.size(), stream.size());
}

TEST_P(StateReaderTest, WaitsForADeviceThatIsNotReadyThoughItsFdIsNonBlocking) {
  FdPair pair = MakePipe(O_NONBLOCK);
  Read(std::move(pair.read));
  EXPECT_TRUE(reader_->Pump());
  ring_->Wait(std::chrono::milliseconds(5));
  EXPECT_FALSE(reader_->has_packet());
  EXPECT_FALSE(reader_->finished());
  WriteOut(pair.write.get(), "late");
  pair.write.Reset();
  ReadAll();
  ExpectWhole("late");
}

TEST_P(StateReaderTest, HoldsNoBytesBackWhileTheDeviceIsIdle) {
  FdPair pair = MakePipe();
  Read(std::move(pair.read));
  WriteOut(pair.write.get(), "first");
  EXPECT_TRUE(reader_->Pump());
  ASSERT_TRUE(RunUntil([this] { return reader_->has_packet(); }));
  EXPECT_EQ(PayloadOf(reader_->PopPacket()), "first");  // while the chain's next read waits
  EXPECT_FALSE(reader_->idle());
}

TEST_P(StateReaderTest, ReadsOnlyTwoChainsAheadOfWhoPops) {
  FdPair pair = MakePipe();
  WriteOut(pair.write.get(), RandomBytes(50'000, 3));
  pair.write.Reset();
  Read(std::move(pair.read), 100);
  for (int round = 0; round < 100; ++round) {
    reader_->Pump();
    ring_->Wait(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(arena_->buffer_count() - arena_->free_count(), 2 * kChainPackets);
  EXPECT_EQ(reader_->packets(), 2 * kChainPackets);
  EXPECT_FALSE(reader_->Pump());
  ReadAll();
  ExpectWhole(RandomBytes(50'000, 3));
}

TEST_P(StateReaderTest, GoesOnWhenTheArenaHasBuffersAgain) {
  FdPair pair = MakePipe();
  const std::string stream = RandomBytes(20'000, 4);
  WriteOut(pair.write.get(), stream);
  pair.write.Reset();
  Read(std::move(pair.read));
  std::vector<Buffer> elsewhere;
  while (Buffer buffer = arena_->TryAcquire()) elsewhere.push_back(std::move(buffer));
  EXPECT_FALSE(reader_->Pump());
  elsewhere.pop_back();
  EXPECT_TRUE(reader_->Pump());  // a chain of one
  elsewhere.clear();
  ReadAll();
  ExpectWhole(stream);
}

TEST_P(StateReaderTest, AnErrorIsFinalAlthoughALaterReadSaysTheEnd) {
  Read(FailsAfter("GODWIT"));
  ReadAll();
  EXPECT_EQ(stream_, "GODWIT");  // what was read before it can still be sent
  ASSERT_TRUE(RunUntil([this] { return reader_->idle(); }));
  EXPECT_FALSE(reader_->status().ok());
  EXPECT_THAT(std::string(reader_->status().message()),
              testing::AllOf(HasSubstr("soft:a"), HasSubstr("byte 6")));
  EXPECT_FALSE(reader_->finished());
  EXPECT_FALSE(reader_->Pump());
}

TEST_P(StateReaderTest, DataAfterAnErrorDoesNotCount) {
  FailsOnce pair = MakeFailsOnce();
  WriteOut(pair.far.get(), "a stream with a hole");
  Read(std::move(pair.near));
  EXPECT_TRUE(reader_->Pump());
  ASSERT_TRUE(RunUntil([this] { return !reader_->status().ok(); }));
  CancelReader();  // the chain's later reads would wait for ever
  EXPECT_FALSE(reader_->has_packet());
  EXPECT_EQ(reader_->stream_bytes(), 0U);
  EXPECT_FALSE(reader_->finished());
}

TEST_P(StateReaderTest, AFdThatCanNotBeReadFailsAtByte0) {
  Read(UniqueFd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  ReadAll();
  EXPECT_FALSE(reader_->status().ok());
  EXPECT_THAT(std::string(reader_->status().message()), HasSubstr("byte 0"));
  EXPECT_TRUE(packets_.empty());
}

TEST_P(StateReaderTest, ACancelledReadEndsAndItsBuffersAreFree) {
  FdPair pair = MakePipe();
  Read(std::move(pair.read));
  EXPECT_TRUE(reader_->Pump());
  ring_->Wait(std::chrono::milliseconds(1));
  EXPECT_FALSE(reader_->idle());
  CancelReader();
  EXPECT_EQ(arena_->free_count(), kArenaBuffers);
  EXPECT_FALSE(reader_->Pump());
  EXPECT_FALSE(reader_->finished());
}

class ReadAtOnceTest : public StateReaderTest {
 protected:
  static UniqueFd InMemory(const std::string& content) {
    UniqueFd file(::memfd_create("stream", MFD_CLOEXEC));
    WriteOut(file.get(), content);
    ::lseek(file.get(), 0, SEEK_SET);
    return file;
  }
  void ReadAllAtOnce() {
    while (!reader_->finished() && reader_->status().ok()) {
      ASSERT_TRUE(reader_->ReadAtOnce(kPacketBytes));
      EXPECT_LE(arena_->buffer_count() - arena_->free_count(), 1U);
      if (reader_->has_packet()) Take(reader_->PopPacket());
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Buffers, ReadAtOnceTest, testing::Values(false),
                         [](const auto&) { return "Plain"; });

TEST_P(ReadAtOnceTest, AFileInMemoryIsReadPacketByPacketWithoutTheRing) {
  for (const size_t bytes : {size_t{0}, size_t{1}, kPacketBytes - 1, kPacketBytes, kPacketBytes + 1,
                             size_t{50} * kPacketBytes + 17}) {
    SCOPED_TRACE(bytes);
    packets_.clear();
    stream_.clear();
    stream_crc_ = 0;
    const std::string stream = RandomBytes(bytes, 5);
    Read(InMemory(stream));
    EXPECT_FALSE(reader_->reads_at_once()) << "nobody has let it";
    reader_->LetWorkerRead();
    ASSERT_TRUE(reader_->reads_at_once());
    ReadAllAtOnce();
    ExpectWhole(stream);
    EXPECT_EQ(packets_.size(), (bytes + kPacketBytes - 1) / kPacketBytes);
    EXPECT_FALSE(reader_->ReadAtOnce(kPacketBytes)) << "the stream is over";
    EXPECT_EQ(ring_->in_flight(), 0U);
    reader_.reset();
  }
}

TEST_P(ReadAtOnceTest, WhatMayWaitIsNotReadThatWay) {
  // Its path is in memory, what it says is not.
  const std::string path = absl::StrCat("/dev/shm/godwit-fifo-", ::getpid());
  if (::mkfifo(path.c_str(), 0600) == 0) {
    Read(UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)));
    ::unlink(path.c_str());
    reader_->LetWorkerRead();
    EXPECT_FALSE(reader_->reads_at_once());
  }
  for (const bool in_pre_copy : {false, true}) {
    SCOPED_TRACE(in_pre_copy ? "a file in PRE_COPY" : "a pipe");
    reader_ = std::make_unique<StateReader>(
        kDevice, "soft:a", in_pre_copy ? InMemory("GODWIT") : std::move(MakePipe().read),
        kPacketBytes, kChainPackets, *ring_, *arena_,
        in_pre_copy ? DeviceState::kPreCopy : DeviceState::kStopCopy);
    reader_->LetWorkerRead();
    EXPECT_FALSE(reader_->reads_at_once());
  }
}

TEST_P(ReadAtOnceTest, GoesOnWhenThereAreBuffersAgainAndRoomForPackets) {
  const std::string stream = RandomBytes(20 * kPacketBytes, 6);
  Read(InMemory(stream));
  reader_->LetWorkerRead();
  std::vector<Buffer> elsewhere;
  while (Buffer buffer = arena_->TryAcquire()) elsewhere.push_back(std::move(buffer));
  EXPECT_FALSE(reader_->ReadAtOnce(kPacketBytes));
  elsewhere.clear();
  for (uint32_t i = 0; i < 2 * kChainPackets; ++i) {
    EXPECT_TRUE(reader_->ReadAtOnce(kPacketBytes));
  }
  EXPECT_FALSE(reader_->ReadAtOnce(kPacketBytes)) << "two chains' worth wait";
  while (reader_->has_packet()) Take(reader_->PopPacket());
  ReadAllAtOnce();
  ExpectWhole(stream);
}

TEST_P(ReadAtOnceTest, AnErrorIsFinalAndSaysWhere) {
  const UniqueFd file = InMemory("GODWIT");
  Read(UniqueFd(::open(absl::StrCat("/proc/self/fd/", file.get()).c_str(), O_WRONLY | O_CLOEXEC)));
  reader_->LetWorkerRead();
  ASSERT_TRUE(reader_->reads_at_once());
  EXPECT_TRUE(reader_->ReadAtOnce(kPacketBytes));
  EXPECT_FALSE(reader_->status().ok());
  EXPECT_THAT(std::string(reader_->status().message()),
              testing::AllOf(HasSubstr("soft:a"), HasSubstr("byte 0")));
  EXPECT_FALSE(reader_->ReadAtOnce(kPacketBytes));
  EXPECT_EQ(arena_->free_count(), kArenaBuffers);
}

TEST_P(StateReaderTest, TheConfigPacketClosesTheStream) {
  for (const std::string& config :
       {std::string(), std::string("some configuration"), std::string(kConfigBytesMax, 'c')}) {
    packets_.clear();
    stream_.clear();
    stream_crc_ = 0;
    FdPair pair = MakePipe();
    WriteOut(pair.write.get(), "GODWIT");
    pair.write.Reset();
    Read(std::move(pair.read), 4);
    ReadAll();
    const Packet packet = reader_->MakeConfigPacket(config, arena_->TryAcquire());
    const wire::Frame expected =
        wire::ConfigFrame(kDevice, static_cast<uint32_t>(packets_.size()), "GODWIT", config);
    EXPECT_EQ(PayloadOf(packet), expected.payload);
    EXPECT_EQ(packet.header.index, expected.index);
    EXPECT_EQ(packet.header.device, expected.device);
    EXPECT_EQ(packet.header.stream_offset, expected.stream_offset);
    EXPECT_EQ(packet.header.crc_before, expected.crc_before);
    EXPECT_EQ(packet.header.crc_after, expected.crc_after);
    EXPECT_EQ(packet.header.config_crc, expected.config_crc);
    EXPECT_EQ(packet.header.flags, expected.flags);
    EXPECT_EQ(packet.header.payload_bytes, expected.payload.size());
    reader_.reset();
  }
}

}  // namespace
}  // namespace godwit
