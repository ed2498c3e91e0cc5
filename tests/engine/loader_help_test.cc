// Goal: of a file in memory the worker writes what it can at once; the file has every byte once and
// in order, whoever wrote it; what goes wrong is said by the loader's thread as ever; a driver's fd
// only once it has shown that it takes no time; and any other is the thread's alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "engine/loader.h"
#include "tests/engine/byte_sources.h"
#include "tests/engine/fake_device.h"
#include "tests/engine/packets.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kWindowPackets = 16;
constexpr size_t kPageBytes = 4096;

class LoaderHelpTest : public testing::Test {
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
    window_.reset();
    EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
  }

  // A device whose data_fd is `fd`; the loader's thread does not run yet.
  void Prepare(UniqueFd fd, std::unique_ptr<StreamCheck> check = nullptr, bool driver = true) {
    device_ = std::make_unique<FakeDevice>(FakeDevice::Script{});
    window_ = std::make_unique<ReorderWindow>(kWindowPackets);
    loader_ = std::make_unique<Loader>(*device_, std::move(fd), *window_, kWindowPackets,
                                       *progress_, std::move(check));
    loader_->LetWorkerHelp(driver);
  }
  // A file in memory, which file_ stays open to.
  void PrepareFile(std::unique_ptr<StreamCheck> check = nullptr) {
    file_ = UniqueFd(::memfd_create("stream", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_TRUE(file_.valid());
    Prepare(UniqueFd(::dup(file_.get())), std::move(check));
  }

  // As the worker does.
  void Arrive(const wire::Frame& frame) {
    const absl::Status status = window_->Insert(PacketOf(frame, *arena_));
    ASSERT_TRUE(status.ok()) << status;
    loader_->Help();
  }
  wire::Frame NextData(absl::string_view payload) {
    wire::Frame frame = wire::DataFrame(0, next_index_++, stream_, payload);
    stream_ += std::string(payload);
    return frame;
  }
  wire::Frame NextConfig() { return wire::ConfigFrame(0, next_index_++, stream_, "c"); }

  Loader::Phase WaitForTheEnd() {
    // The cap is no time limit that a test means; it ends a hang.
    for (int round = 0; round < 30'000 && loader_->phase() == Loader::Phase::kLoading; ++round) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return loader_->phase();
  }
  std::string FailureText() {
    EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kFailed);
    return std::string(loader_->status().message());
  }
  // The file's position is the loader's too.
  std::string Written() const {
    const off_t position = ::lseek(file_.get(), 0, SEEK_CUR);
    EXPECT_EQ(::lseek(file_.get(), 0, SEEK_SET), 0);
    std::string all = ReadUntilEnd(file_.get());
    EXPECT_EQ(::lseek(file_.get(), position, SEEK_SET), position);
    return all;
  }

  std::unique_ptr<Arena> arena_;
  std::optional<Notifier> progress_;
  std::unique_ptr<FakeDevice> device_;
  std::unique_ptr<ReorderWindow> window_;
  UniqueFd file_;
  std::unique_ptr<Loader> loader_;
  std::string stream_;
  uint32_t next_index_ = 0;
};

TEST_F(LoaderHelpTest, TheWorkerWritesTheDataAndTheThreadTheConfig) {
  PrepareFile();
  for (const char* const payload : {"GOD", "W", "IT"}) Arrive(NextData(payload));
  EXPECT_EQ(loader_->helped_packets(), 3U);  // without the thread, which does not run
  EXPECT_EQ(loader_->loaded_bytes(), 6U);
  EXPECT_EQ(window_->loaded_packets(), 3U);
  EXPECT_EQ(Written(), "GODWIT");
  Arrive(NextConfig());
  EXPECT_THAT(device_->calls(), IsEmpty());
  loader_->Start();
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
  EXPECT_EQ(loader_->stream_crc(), wire::Crc32c("GODWIT"));
  EXPECT_THAT(device_->calls(), ElementsAre("STOP", "config:c"));
}

TEST_F(LoaderHelpTest, TheConfigPacketWakesTheThreadWhicheverPacketComesLast) {
  PrepareFile();
  loader_->Start();
  const wire::Frame first = NextData("GOD");
  const wire::Frame second = NextData("WIT");
  Arrive(NextConfig());
  Arrive(second);
  Arrive(first);
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
  EXPECT_EQ(Written(), "GODWIT");
}

TEST_F(LoaderHelpTest, APipeIsTheThreadsAlone) {
  FdPair pipe = MakePipe();
  Prepare(std::move(pipe.write));
  Arrive(NextData("GOD"));
  EXPECT_EQ(loader_->helped_packets(), 0U);
  EXPECT_EQ(window_->loaded_packets(), 0U);
  loader_->Start();
  char bytes[3];
  EXPECT_EQ(::read(pipe.read.get(), bytes, sizeof(bytes)), 3);
}

class AcceptAll final : public StreamCheck {
 public:
  absl::Status Feed(absl::Span<const std::byte> /*bytes*/) override { return absl::OkStatus(); }
  absl::Status End() override { return absl::OkStatus(); }
};

TEST_F(LoaderHelpTest, AStreamWithACheckIsTheThreadsAlone) {
  PrepareFile(std::make_unique<AcceptAll>());
  Arrive(NextData("GOD"));
  EXPECT_EQ(loader_->helped_packets(), 0U);
  loader_->Start();
  Arrive(NextConfig());
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded);
}

TEST_F(LoaderHelpTest, OfALongRunTheWorkerWritesAFewAndTheThreadTheRest) {
  PrepareFile();
  std::vector<wire::Frame> frames;
  frames.reserve(12);
  for (int i = 0; i < 12; ++i) {
    frames.push_back(NextData(std::string(1, static_cast<char>('a' + i))));
  }
  std::reverse(frames.begin(), frames.end());
  for (const wire::Frame& frame : frames) Arrive(frame);
  EXPECT_EQ(loader_->helped_packets(), 4U);
  EXPECT_EQ(Written(), "abcd");
  loader_->Start();
  while (window_->loaded_packets() < frames.size()) std::this_thread::yield();
  EXPECT_EQ(loader_->helped_packets(), 4U);
  EXPECT_EQ(Written(), "abcdefghijkl");
}

// A file that may not grow takes a part of the second packet, and then nothing.
TEST_F(LoaderHelpTest, TheThreadGoesOnWhereAPartialWriteEndedAndSaysWhatIsWrong) {
  PrepareFile();
  ASSERT_EQ(::ftruncate(file_.get(), 3 * kPageBytes), 0);
  ASSERT_EQ(::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_GROW), 0);
  Arrive(NextData(std::string(2 * kPageBytes, 'a')));
  EXPECT_EQ(loader_->helped_packets(), 1U);
  Arrive(NextData(std::string(2 * kPageBytes, 'b')));
  EXPECT_EQ(loader_->helped_packets(), 1U);
  EXPECT_EQ(window_->loaded_packets(), 1U);
  loader_->Start();
  EXPECT_THAT(FailureText(), AllOf(HasSubstr("fake:a"), HasSubstr("at byte 12288 failed")));
  EXPECT_EQ(Written(), std::string(2 * kPageBytes, 'a') + std::string(kPageBytes, 'b'));
  EXPECT_THAT(device_->calls(), IsEmpty());
}

TEST_F(LoaderHelpTest, TheThreadWritesOnlyWhatAPartialWriteLeft) {
  PrepareFile();
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit two_bytes = {2, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &two_bytes), 0);
  Arrive(NextData("GODWIT"));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  EXPECT_EQ(Written(), "GO");
  loader_->Start();
  while (window_->loaded_packets() < 1) std::this_thread::yield();
  EXPECT_EQ(Written(), "GODWIT");
  // Such a file is left to the thread for a while.
  for (uint32_t i = 1; i <= 64; ++i) {
    Arrive(NextData("."));
    while (window_->loaded_packets() < i + 1) std::this_thread::yield();
  }
  EXPECT_EQ(loader_->helped_packets(), 0U);
  // The thread, too, may find the next one before it sleeps.
  for (uint32_t i = 65; i < 1000 && loader_->helped_packets() == 0; ++i) {
    Arrive(NextData("!"));
    while (window_->loaded_packets() < i + 1) std::this_thread::yield();
  }
  EXPECT_EQ(loader_->helped_packets(), 1U);
  Arrive(NextConfig());
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded) << loader_->status();
  EXPECT_EQ(Written(), stream_);
}

// An eventfd is of no file system, as a driver's fd: it takes 8 bytes, and waits where its count
// would be too large.
class DriversFdTest : public LoaderHelpTest {
 protected:
  void SetUp() override {
    LoaderHelpTest::SetUp();
    counter_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    ASSERT_TRUE(counter_.valid());
    Prepare(UniqueFd(::dup(counter_.get())));
  }
  wire::Frame NextAdd(uint64_t value) {
    return NextData(std::string(reinterpret_cast<const char*>(&value), sizeof(value)));
  }
  void Add(uint64_t value) { Arrive(NextAdd(value)); }
  void AwaitAll() const {
    while (window_->loaded_packets() < next_index_) std::this_thread::yield();
  }
  uint64_t TakeCount() const {
    uint64_t count = 0;
    EXPECT_EQ(::read(counter_.get(), &count, sizeof(count)), 8);
    return count;
  }

  UniqueFd counter_;
};

TEST_F(DriversFdTest, TheThreadTriesItAndThenTheWorkerHelps) {
  loader_->Start();
  while (next_index_ < 8) {
    Add(1);
    AwaitAll();
  }
  EXPECT_EQ(loader_->helped_packets(), 0U);
  // The thread, too, may find the next one before it sleeps.
  while (next_index_ < 1000 && loader_->helped_packets() == 0) {
    Add(1);
    AwaitAll();
  }
  EXPECT_GT(loader_->helped_packets(), 0U);
  EXPECT_EQ(TakeCount(), next_index_);
  Arrive(NextConfig());
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded) << loader_->status();
}

TEST_F(DriversFdTest, AWriteOfTheThreadsThatTookItsTimeKeepsTheWorkerAway) {
  loader_->Start();
  Add(0xfffffffffffffff0);
  AwaitAll();
  Add(0x100);
  while (!loader_->blocked_call().in_call()) std::this_thread::yield();
  // Longer than what the worker would wait for.
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_EQ(window_->loaded_packets(), 1U);
  EXPECT_EQ(TakeCount(), 0xfffffffffffffff0);
  AwaitAll();
  while (next_index_ < 200) {
    Add(1);
    AwaitAll();
  }
  EXPECT_EQ(loader_->helped_packets(), 0U);
  Arrive(NextConfig());
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded) << loader_->status();
}

TEST_F(DriversFdTest, PacketsThatWereNotWrittenAreNoTrial) {
  std::vector<wire::Frame> frames;
  for (uint32_t i = 0; i < kWindowPackets; ++i) frames.push_back(NextAdd(1));
  std::reverse(frames.begin(), frames.end());
  for (const wire::Frame& frame : frames) Arrive(frame);
  EXPECT_EQ(loader_->helped_packets(), 0U);
  EXPECT_EQ(window_->loaded_packets(), 0U);
  loader_->Start();
  AwaitAll();
}

// One of several, or beside queue pairs.
TEST_F(LoaderHelpTest, ADriversFdIsTheThreadsAloneWhereItIsToBe) {
  const UniqueFd counter(::eventfd(0, EFD_CLOEXEC));
  Prepare(UniqueFd(::dup(counter.get())), nullptr, /*driver=*/false);
  loader_->Start();
  const uint64_t one = 1;
  while (next_index_ < 200) {
    Arrive(NextData(std::string(reinterpret_cast<const char*>(&one), sizeof(one))));
    while (window_->loaded_packets() < next_index_) std::this_thread::yield();
  }
  EXPECT_EQ(loader_->helped_packets(), 0U);
}

// It may have taken some of it all the same.
TEST_F(LoaderHelpTest, WhatTheWorkersWriteWasRefusedIsNotWrittenAgain) {
  PrepareFile();
  ASSERT_NE(::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  Arrive(NextData("GOD"));
  const rlimit three_bytes = {3, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &three_bytes), 0);
  Arrive(NextData("WIT"));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  ::signal(SIGXFSZ, SIG_DFL);
  loader_->Start();
  EXPECT_THAT(FailureText(),
              AllOf(HasSubstr("fake:a"), HasSubstr("at byte 3 failed"), HasSubstr("too large")));
  EXPECT_EQ(Written(), "GOD");
}

// No receipt is due for each packet that is loaded before the next one comes.
TEST_F(LoaderHelpTest, HeldReceiptsAreDueByHalvesOfTheWindow) {
  FdPair pipe = MakePipe();
  Prepare(std::move(pipe.write));
  loader_->HoldReceipts();
  loader_->Start();
  pollfd news = {progress_->fd(), POLLIN, 0};
  const auto load_up_to = [&](uint32_t packets) {
    while (next_index_ < packets) {
      EXPECT_EQ(::poll(&news, 1, 0), 0) << next_index_;
      Arrive(NextData("x"));
      while (window_->loaded_packets() < next_index_) std::this_thread::yield();
    }
  };
  load_up_to(kWindowPackets / 2);
  EXPECT_EQ(::poll(&news, 1, 10'000), 1);
  EXPECT_EQ(loader_->announced_packets(), kWindowPackets / 2);
  progress_->Clear();
  // The source hears of two more for another reason: the next half counts from there.
  load_up_to(kWindowPackets / 2 + 2);
  loader_->AnnouncedLoaded(kWindowPackets / 2 + 2);
  load_up_to(kWindowPackets + 2);
  EXPECT_EQ(::poll(&news, 1, 10'000), 1);
}

TEST_F(LoaderHelpTest, APacketThatDoesNotContinueTheStreamIsRefusedByTheThread) {
  PrepareFile();
  Arrive(NextData("GOD"));
  wire::Frame next = NextData("WIT");
  next.crc_before ^= 1;
  Arrive(next);
  EXPECT_EQ(loader_->helped_packets(), 1U);
  loader_->Start();
  EXPECT_THAT(FailureText(), AllOf(HasSubstr("fake:a"), HasSubstr("packet 1")));
  EXPECT_EQ(Written(), "GOD");
}

TEST_F(LoaderHelpTest, AfterAStopTheWorkerWritesNothing) {
  PrepareFile();
  loader_->Start();
  Arrive(NextData("GOD"));
  loader_->Stop();
  Arrive(NextData("WIT"));
  EXPECT_EQ(Written(), "GOD");
  EXPECT_TRUE(absl::IsCancelled(loader_->status())) << loader_->status();
}

// Runs of every length, so that worker and thread take turns.
TEST_F(LoaderHelpTest, WorkerAndThreadTogetherWriteEachByteOnceAndInOrder) {
  constexpr uint32_t kPackets = 20'000;
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  PrepareFile();
  loader_->Start();
  while (next_index_ < kPackets) {
    std::vector<wire::Frame> frames;
    const size_t run = 1 + random() % (kWindowPackets / 2);
    for (size_t i = 0; i < run; ++i) {
      frames.push_back(
          NextData(std::string(1 + random() % 3, static_cast<char>('a' + random() % 26))));
    }
    std::shuffle(frames.begin(), frames.end(), random);
    while (next_index_ > window_->loaded_packets() + kWindowPackets) std::this_thread::yield();
    for (const wire::Frame& frame : frames) {
      Arrive(frame);
      if (HasFatalFailure()) return;
    }
  }
  const uint32_t data_packets = next_index_;
  while (window_->loaded_packets() < data_packets) std::this_thread::yield();
  Arrive(NextConfig());
  EXPECT_EQ(WaitForTheEnd(), Loader::Phase::kLoaded) << loader_->status();
  EXPECT_GT(loader_->helped_packets(), 0U);
  EXPECT_LT(loader_->helped_packets(), data_packets);
  EXPECT_EQ(Written(), stream_);
}

}  // namespace
}  // namespace godwit
