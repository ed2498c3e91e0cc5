// Goal: files in memory arrive whole whoever reads and writes them: with few processors the
// workers, with more, or when packets are sealed, the kernel's threads and the loaders; and a
// session that ends early leaves none of them half made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "base/processors.h"
#include "tests/engine/on_one_processor.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

constexpr size_t kPacketBytesLarge = 8'000'000;  // more than the largest file

// On tmpfs, wherever that is; the worker helps nowhere else.
std::filesystem::path MemoryFolder() {
  std::string path = "/dev/shm/godwit-files-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) return {};
  return path;
}

// Which thread wrote how many packets.
class WriterCounts final : public TraceSink {
 public:
  void OnSpan(const TraceSpan& span) override {
    if (span.track != TraceSpan::Track::kLoader) return;
    char name[16] = {};
    ::pthread_getname_np(::pthread_self(), name, sizeof(name));
    std::lock_guard<std::mutex> lock(mutex_);
    ++packets_[name];
    bytes_ += span.bytes;
  }
  uint64_t PacketsBy(const std::string& thread) {
    std::lock_guard<std::mutex> lock(mutex_);
    return packets_[thread];
  }
  uint64_t bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, uint64_t> packets_;
  uint64_t bytes_ = 0;
};

// How many packets of the first device were read.
class ReadCounts final : public TraceSink {
 public:
  void OnSpan(const TraceSpan& span) override {
    if (span.track == TraceSpan::Track::kReader && span.device == 0 && span.bytes > 0) ++packets_;
  }
  uint64_t packets() const { return packets_; }

 private:
  std::atomic<uint64_t> packets_{0};
};

class SessionFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = MemoryFolder();
    if (folder_.empty()) GTEST_SKIP() << "there is no /dev/shm here to make files in memory";
    for (const auto& [name, bytes] : sizes_) {
      std::ofstream file(folder_ / (name + ".source"), std::ios::binary);
      std::string content(bytes, '\0');
      for (char& c : content) c = static_cast<char>(random_());
      file.write(content.data(), static_cast<std::streamsize>(content.size()));
      source_specs_.push_back("file:" + (folder_ / (name + ".source")).string());
      target_specs_.push_back("file:" + (folder_ / (name + ".target")).string());
      total_bytes_ += bytes;
    }
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  void RunOnOneProcessor() { one_processor_.emplace(); }
  std::string ContentOf(const std::string& name) const {
    std::ifstream file(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const std::vector<std::pair<std::string, size_t>> sizes_ = {
      {"large", 5'000'001}, {"small", 1}, {"empty", 0}, {"page", 4096}};
  std::mt19937 random_{20261122};
  std::filesystem::path folder_;
  std::optional<OnOneProcessor> one_processor_;
  std::vector<std::string> source_specs_;
  std::vector<std::string> target_specs_;
  uint64_t total_bytes_ = 0;
  WriterCounts writers_;
};

TEST_F(SessionFilesTest, OnOneProcessorTheWorkerWrites) {
  const Watchdog watchdog("files");
  RunOnOneProcessor();
  Devices source_devices(source_specs_, DeviceRole::kSource);
  Devices target_devices(target_specs_, DeviceRole::kTarget);
  TargetOptions options = RunningTarget::DefaultOptions();
  options.trace = &writers_;
  RunningTarget target(target_devices.pointers(), std::move(options));
  RecordingObserver observer;
  SourceSession source(SourceOptionsFor(target.Port()), source_devices.pointers(), observer);
  EXPECT_EQ(source.Run().outcome, SessionOutcome::kDone);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
  for (const auto& [name, bytes] : sizes_) {
    EXPECT_EQ(ContentOf(name + ".target"), ContentOf(name + ".source")) << name;
  }
  // Of 1223. Long runs, and what comes after a write that had to wait for the processor, are the
  // loader's.
  EXPECT_GT(writers_.PacketsBy("godwit-worker"), 0U);
  EXPECT_EQ(writers_.bytes(), total_bytes_);
}

// In packets that its cache holds, though larger ones are allowed.
TEST_F(SessionFilesTest, OnOneProcessorTheWorkerReads) {
  const Watchdog watchdog("files");
  if (SecondLevelCacheBytes() == 0) GTEST_SKIP() << "this processor's cache is not known";
  RunOnOneProcessor();
  Devices source_devices(source_specs_, DeviceRole::kSource);
  Devices target_devices(target_specs_, DeviceRole::kTarget);
  RunningTarget target(target_devices.pointers(), RunningTarget::DefaultOptions());
  ReadCounts reads;
  SourceOptions options = SourceOptionsFor(target.Port());
  options.lanes = 1;
  options.packet_bytes = kPacketBytesLarge;
  options.trace = &reads;
  RecordingObserver observer;
  SourceSession source(std::move(options), source_devices.pointers(), observer);
  EXPECT_EQ(source.Run().outcome, SessionOutcome::kDone);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
  EXPECT_EQ(ContentOf("large.target"), ContentOf("large.source"));
  const size_t packet_bytes =
      std::min(std::max<size_t>(SecondLevelCacheBytes() / 4, 512 << 10), kPacketBytesLarge);
  // Fewer, if a read took so long that the kernel's threads did the next ones.
  EXPECT_GT(reads.packets(), 1U);
  EXPECT_LE(reads.packets(), (sizes_[0].second + packet_bytes - 1) / packet_bytes);
}

TEST_F(SessionFilesTest, SealedPacketsAreTheLoaders) {
  const Watchdog watchdog("files");
  RunOnOneProcessor();
  ReadCounts reads;
  const std::string key = (folder_ / "psk").string();
  std::ofstream(key) << std::string(64, '7');
  std::filesystem::permissions(key, std::filesystem::perms::owner_read);
  Devices source_devices(source_specs_, DeviceRole::kSource);
  Devices target_devices(target_specs_, DeviceRole::kTarget);
  TargetOptions options = RunningTarget::DefaultOptions();
  options.trace = &writers_;
  options.trust.psk_file = key;
  options.trust.seal = SealMode::kOn;
  RunningTarget target(target_devices.pointers(), std::move(options));
  SourceOptions source_options = SourceOptionsFor(target.Port());
  source_options.trust.psk_file = key;
  source_options.trust.seal = SealMode::kOn;
  source_options.lanes = 1;
  source_options.packet_bytes = kPacketBytesLarge;
  source_options.trace = &reads;
  RecordingObserver observer;
  SourceSession source(std::move(source_options), source_devices.pointers(), observer);
  EXPECT_EQ(source.Run().outcome, SessionOutcome::kDone);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
  EXPECT_EQ(ContentOf("large.target"), ContentOf("large.source"));
  EXPECT_EQ(writers_.PacketsBy("godwit-worker"), 0U);
  EXPECT_EQ(writers_.bytes(), total_bytes_);
  EXPECT_EQ(reads.packets(), 1U) << "in packets that its cache holds";
}

TEST_F(SessionFilesTest, ACancelledSessionLeavesNoFileThatItMade) {
  const Watchdog watchdog("files");
  RunOnOneProcessor();
  Devices source_devices(source_specs_, DeviceRole::kSource);
  Devices target_devices(target_specs_, DeviceRole::kTarget);
  RunningTarget target(target_devices.pointers());
  RecordingObserver observer;
  SourceSession source(SourceOptionsFor(target.Port()), source_devices.pointers(), observer);
  std::thread canceller([&] {
    while (target.session().progress().bytes == 0) std::this_thread::yield();
    target.session().Cancel();
  });
  const SessionReport report = source.Run();
  canceller.join();
  if (report.outcome == SessionOutcome::kRolledBack) {
    EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
    for (const auto& [name, bytes] : sizes_) {
      EXPECT_FALSE(std::filesystem::exists(folder_ / (name + ".target"))) << name;
    }
    source_devices.ExpectAllIn(DeviceState::kRunning);
  } else {  // it was faster
    EXPECT_EQ(ContentOf("large.target"), ContentOf("large.source"));
  }
}

}  // namespace
}  // namespace godwit
