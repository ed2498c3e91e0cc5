// Goal: a device gets its stream whole, in order and once; it is told to validate only when length
// and digest are right; and whatever goes wrong first is final.
#include "engine/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>

#include <chrono>
#include <functional>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "tests/engine/byte_sources.h"
#include "tests/engine/fake_device.h"
#include "tests/engine/packets.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kWindowPackets = 8;

class LoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    auto arena = Arena::Create(2 * kWindowPackets, kConfigPayloadBytesMax);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    auto progress = Notifier::Create();
    ASSERT_TRUE(progress.ok()) << progress.status();
    progress_.emplace(*std::move(progress));
  }
  void TearDown() override {
    loader_.reset();
    if (drain_.joinable()) drain_.join();
    window_.reset();
    EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
  }

  // A device whose data_fd is the pipe `pair`; what it is given collects in written_ from Drain()
  // on.
  void Load(FakeDevice::Script script = {}, FdPair pair = MakePipe()) {
    device_ = std::make_unique<FakeDevice>(std::move(script));
    read_end_ = std::move(pair.read);
    window_ = std::make_unique<ReorderWindow>(kWindowPackets);
    loader_ = std::make_unique<Loader>(*device_, std::move(pair.write), *window_, kWindowPackets,
                                       *progress_);
    loader_->Start();
  }
  void Drain() {
    drain_ = std::thread([this] { written_ = ReadUntilEnd(read_end_.get()); });
  }
  std::string Written() {
    loader_.reset();  // closes the data_fd
    if (!drain_.joinable()) Drain();
    drain_.join();
    return written_;
  }

  // Puts a packet in as the worker does.
  void Arrive(const wire::Frame& frame) {
    const absl::Status status = window_->Insert(PacketOf(frame, *arena_));
    ASSERT_TRUE(status.ok()) << status;
  }
  // The next packet of the stream.
  void ArriveData(absl::string_view payload) {
    Arrive(wire::DataFrame(0, next_index_++, stream_, payload));
    stream_ += std::string(payload);
  }
  void ArriveConfig(absl::string_view config = "c") {
    Arrive(wire::ConfigFrame(0, next_index_++, stream_, config));
  }

  // The cap is no time limit that a test means; it ends a hang.
  bool WaitUntil(const std::function<bool()>& done) {
    for (int round = 0; round < 30'000; ++round) {
      if (done()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  Loader::Phase WaitForTheEnd() {
    EXPECT_TRUE(WaitUntil([this] { return loader_->phase() != Loader::Phase::kLoading; }));
    return loader_->phase();
  }
  std::string FailureText() {
    EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kFailed);
    return std::string(loader_->status().message());
  }
  bool Notified() const {
    pollfd fd = {progress_->fd(), POLLIN, 0};
    return ::poll(&fd, 1, 0) == 1;
  }

  std::unique_ptr<Arena> arena_;
  std::optional<Notifier> progress_;
  std::unique_ptr<FakeDevice> device_;
  std::unique_ptr<ReorderWindow> window_;
  UniqueFd read_end_;
  std::unique_ptr<Loader> loader_;
  std::thread drain_;
  std::string written_;
  std::string stream_;
  uint32_t next_index_ = 0;
};

TEST_F(LoaderTest, WritesTheStreamInOrderThenStopsThenAppliesTheConfig) {
  Load();
  Arrive(wire::DataFrame(0, 1, "GOD", "WIT"));
  Arrive(wire::ConfigFrame(0, 2, "GODWIT", "its configuration"));
  EXPECT_EQ(loader_->phase(), Loader::Phase::kLoading);
  Arrive(wire::DataFrame(0, 0, "", "GOD"));
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
  EXPECT_EQ(loader_->loaded_bytes(), 6U);
  EXPECT_EQ(loader_->stream_crc(), wire::Crc32c("GODWIT"));
  EXPECT_EQ(window_->loaded_packets(), 3U);
  EXPECT_THAT(device_->calls(), ElementsAre("STOP", "config:its configuration"));
  EXPECT_EQ(Written(), "GODWIT");
  EXPECT_TRUE(Notified());
}

TEST_F(LoaderTest, AnEmptyStreamIsLoadedByItsConfigPacketAlone) {
  Load();
  ArriveConfig("");
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
  EXPECT_EQ(loader_->loaded_bytes(), 0U);
  EXPECT_THAT(device_->calls(), ElementsAre("STOP", "config:"));
}

TEST_F(LoaderTest, NeverStopsTheDeviceBeforeTheConfigPacketHasCome) {
  Load();
  for (int i = 0; i < 4; ++i) ArriveData("data");
  ASSERT_TRUE(WaitUntil([this] { return window_->loaded_packets() == 4; }));
  EXPECT_THAT(device_->calls(), IsEmpty());
  EXPECT_EQ(loader_->phase(), Loader::Phase::kLoading);
  EXPECT_TRUE(Notified());  // a receipt is due: nothing more is there to load
}

TEST_F(LoaderTest, TheDeviceHasEveryByteWhenItIsToldToStop) {
  int waiting = -1;
  Load({.on_stop = [&] { EXPECT_EQ(::ioctl(read_end_.get(), FIONREAD, &waiting), 0); }});
  ArriveData("GOD");
  ArriveData("WIT");
  ArriveConfig();
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
  EXPECT_EQ(waiting, 6);
}

TEST_F(LoaderTest, GoesOnAfterPartialWritesAndFullPipes) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  FdPair pair = MakePipe(O_NONBLOCK);
  ASSERT_GT(::fcntl(pair.write.get(), F_SETPIPE_SZ, 4096), 0);
  ASSERT_EQ(::fcntl(pair.read.get(), F_SETFL, 0), 0);
  Load({}, std::move(pair));
  Drain();
  for (int i = 0; i < 40; ++i) {
    std::string payload(1 + random() % 20'000, '\0');
    for (char& c : payload) c = static_cast<char>(random());
    ASSERT_TRUE(
        WaitUntil([&] { return next_index_ < window_->loaded_packets() + kWindowPackets; }));
    ArriveData(payload);
  }
  ASSERT_TRUE(WaitUntil([&] { return next_index_ < window_->loaded_packets() + kWindowPackets; }));
  ArriveConfig();
  ASSERT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
  EXPECT_EQ(loader_->loaded_bytes(), stream_.size());
  EXPECT_TRUE(Written() == stream_);
}

TEST_F(LoaderTest, TheFirstWriteErrorIsFinal) {
  FailsOnce pair = MakeFailsOnce();  // a second write would succeed
  Load({}, {std::move(pair.far), std::move(pair.near)});
  ArriveData("GOD");
  ArriveData("WIT");
  ArriveConfig();
  EXPECT_THAT(FailureText(), AllOf(HasSubstr("fake:a"), HasSubstr("byte 0")));
  EXPECT_THAT(device_->calls(), IsEmpty());  // not told to stop: it might believe its half
  EXPECT_EQ(loader_->loaded_bytes(), 0U);
  loader_.reset();
  char byte = 0;
  EXPECT_EQ(::recv(read_end_.get(), &byte, 1, MSG_DONTWAIT), -1);  // no retry
}

TEST_F(LoaderTest, AWriteErrorSaysHowFarItCame) {
  FdPair pair = MakePipe();
  Load({}, {UniqueFd(), UniqueFd(::open("/dev/full", O_WRONLY | O_CLOEXEC))});
  ArriveData("GOD");
  EXPECT_THAT(FailureText(), AllOf(HasSubstr("byte 0"), HasSubstr("No space left")));
  EXPECT_TRUE(Notified());
}

TEST_F(LoaderTest, ADeviceThatClosesItsEndIsAnErrorAndNoSignal) {
  FdPair pair = MakePipe();
  pair.read.Reset();
  Load({}, std::move(pair));
  ArriveData("GOD");
  EXPECT_THAT(FailureText(), HasSubstr("Broken pipe"));
}

TEST_F(LoaderTest, RefusesAGapInTheChainOfCrcs) {
  Load();
  ArriveData("GOD");
  wire::Frame next = wire::DataFrame(0, 1, "GOD", "WIT");
  next.crc_before ^= 1;
  Arrive(next);
  EXPECT_THAT(FailureText(), AllOf(HasSubstr("fake:a"), HasSubstr("packet 1")));
  EXPECT_TRUE(absl::IsDataLoss(loader_->status())) << loader_->status();
  EXPECT_THAT(device_->calls(), IsEmpty());
  EXPECT_EQ(Written(), "GOD");
}

TEST_F(LoaderTest, RefusesAPacketThatStandsElsewhereInTheStream) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{2}, uint64_t{4}, ~uint64_t{0} >> 1}) {
    Load();
    stream_.clear();
    next_index_ = 0;
    ArriveData("GOD");
    wire::Frame next = wire::DataFrame(0, 1, "GOD", "WIT");
    next.stream_offset = offset;
    Arrive(next);
    EXPECT_THAT(FailureText(), HasSubstr(absl::StrCat("byte ", offset)));
    EXPECT_EQ(Written(), "GOD");
    window_.reset();
  }
}

TEST_F(LoaderTest, RefusesAStreamThatIsNotAsLongOrNotAsTheConfigPacketSays) {
  wire::Frame longer = wire::ConfigFrame(0, 1, "GOD", "c");
  longer.stream_offset = 4;  // a truncated stream
  wire::Frame other = wire::ConfigFrame(0, 1, "DOG", "c");
  for (const wire::Frame& config : {longer, other}) {
    Load();
    stream_.clear();
    next_index_ = 0;
    ArriveData("GOD");
    Arrive(config);
    EXPECT_THAT(FailureText(), HasSubstr("packet 1"));
    EXPECT_THAT(device_->calls(), IsEmpty());  // several drivers would take the truncated stream
    loader_.reset();
    window_.reset();
  }
}

TEST_F(LoaderTest, RefusesConfigMarksThatAreNotQemusBeforeItTouchesTheDevice) {
  for (const size_t at : {size_t{0}, size_t{7}, size_t{9}, size_t{16}}) {
    Load();
    wire::Frame config = wire::ConfigFrame(0, 0, "", "c");
    config.payload[at] = static_cast<char>(config.payload[at] ^ 0x10);
    Arrive(config);
    EXPECT_THAT(FailureText(), AllOf(HasSubstr("fake:a"), HasSubstr("marked")));
    EXPECT_THAT(device_->calls(), IsEmpty());
    loader_.reset();
    window_.reset();
  }
}

TEST_F(LoaderTest, ADeviceThatRefusesItsStreamIsNotLoaded) {
  Load({.stop = absl::FailedPreconditionError("no such state")});
  ArriveData("GOD");
  ArriveConfig();
  EXPECT_THAT(FailureText(), AllOf(HasSubstr("fake:a"), HasSubstr("no such state")));
  EXPECT_THAT(device_->calls(), ElementsAre("STOP"));  // no config for a device in RESUMING
}

TEST_F(LoaderTest, ADeviceThatRefusesItsConfigIsNotLoaded) {
  Load({.load_config = absl::FailedPreconditionError("another model")});
  ArriveConfig();
  EXPECT_THAT(FailureText(), AllOf(HasSubstr("fake:a"), HasSubstr("another model")));
  EXPECT_EQ(window_->loaded_packets(), 0U);
}

TEST_F(LoaderTest, StopEndsTheWaitForAPacket) {
  Load();
  ArriveData("GOD");
  loader_->Stop();
  EXPECT_EQ(loader_->phase(), Loader::Phase::kFailed);
  EXPECT_TRUE(absl::IsCancelled(loader_->status())) << loader_->status();
  EXPECT_THAT(device_->calls(), IsEmpty());
  loader_->Stop();  // harmless
}

TEST_F(LoaderTest, StopAfterTheEndChangesNothing) {
  Load();
  ArriveConfig();
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
  loader_->Stop();
  EXPECT_EQ(loader_->phase(), Loader::Phase::kLoaded);
}

}  // namespace
}  // namespace godwit
