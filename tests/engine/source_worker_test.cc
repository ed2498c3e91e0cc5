// Goal: what a lane did not take of a burst goes out on another one, whole, once, and in its place;
// a lane with an fd of its own is left alone until it has something that is waited for, and until
// it says so, but not for ever; a window that was full opens by parts; a file in memory is read no
// further than what is sent next.
#include "engine/source_worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <set>
#include <thread>

#include "base/mutex.h"
#include "engine/packet.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

constexpr size_t kPacketBytes = 4096;
constexpr uint32_t kDataPackets = 512;
constexpr uint32_t kWindowPackets = 16;  // so many are let out at once

// What went over a lane, as the other end would see it.
class Wire {
 public:
  void Add(const PacketHeader& header) {
    MutexLock lock(mutex_);
    headers_.push_back(header);
  }
  std::vector<PacketHeader> headers() const {
    MutexLock lock(mutex_);
    return headers_;
  }
  uint64_t packets() const {
    MutexLock lock(mutex_);
    return headers_.size();
  }
  void Break() { broken_ = true; }  // before the headers of the burst that breaks it
  bool broken() const { return broken_; }
  void Polled() { ++polls_; }
  int polls() const { return polls_; }
  void Armed() { ++arms_; }
  int arms() const { return arms_; }
  void Gave() { ++gives_; }
  int gives() const { return gives_; }
  // Whether what was sent is not given back.
  void Hold(bool holds) { holds_ = holds; }
  bool holds() const { return holds_; }

 private:
  std::atomic<bool> broken_{false};
  std::atomic<int> polls_{0};
  std::atomic<int> arms_{0};
  std::atomic<int> gives_{0};
  std::atomic<bool> holds_{false};
  mutable Mutex mutex_;
  std::vector<PacketHeader> headers_ ABSL_GUARDED_BY(mutex_);
};

// Takes everything; or of its first burst only one packet, and is broken from then on.
class WireLane : public Lane {
 public:
  WireLane(Wire& wire, bool breaks) : wire_(wire), breaks_(breaks) {}

  size_t Send(absl::Span<Buffer> packets) override {
    if (!status_.ok()) return 0;
    const size_t taken = breaks_ && packets.size() > 1 ? 1 : packets.size();
    if (taken < packets.size()) wire_.Break();
    for (Buffer& packet : packets.first(taken)) {
      const auto header =
          DecodePacketHeader(packet.header(kFrameHeaderBytes), packet.payload_bytes());
      EXPECT_TRUE(header.ok()) << header.status();
      if (header.ok()) wire_.Add(*header);
      sent_.push_back(std::move(packet));
    }
    if (taken < packets.size()) status_ = absl::UnavailableError("broken in the middle of a burst");
    return taken;
  }
  size_t PollSent(absl::Span<Buffer> sent) override {
    wire_.Polled();
    if (wire_.broken() && status_.ok()) status_ = absl::UnavailableError("broken");
    const size_t count = wire_.holds() ? 0 : std::min(sent.size(), sent_.size());
    for (Buffer& buffer : sent.first(count)) {
      buffer = std::move(sent_.front());
      sent_.pop_front();
      wire_.Gave();
    }
    return count;
  }
  size_t PostReceives(absl::Span<Buffer> /*buffers*/) override { return 0; }
  size_t receives_wanted() const override { return 0; }
  size_t PollReceived(absl::Span<Buffer> /*received*/) override { return 0; }
  void Close() override {
    if (status_.ok()) status_ = absl::CancelledError("closed");
  }
  bool quiescent() const override { return true; }
  bool peer_closed() const override { return false; }
  const absl::Status& status() const override { return status_; }
  const std::string& name() const override { return name_; }

 private:
  Wire& wire_;
  const bool breaks_;
  const std::string name_ = "a wire";
  std::deque<Buffer> sent_;
  absl::Status status_;
};

// Says by an fd that it wants to be polled.
class WatchedLane final : public WireLane {
 public:
  WatchedLane(Wire& wire, int wakeup_fd)
      : WireLane(wire, /*breaks=*/false), wire_(wire), fd_(wakeup_fd) {}

  int wakeup_fd() const override { return fd_; }
  void ArmWakeup() override {
    wire_.Armed();
    uint64_t events = 0;
    (void)!::read(fd_, &events, sizeof(events));  // EAGAIN: none
  }

 private:
  Wire& wire_;
  const int fd_;
};

// A worker of one device, or some, over such lanes.
class SourceWorkerTest : public testing::Test {
 protected:
  void Start(std::vector<std::unique_ptr<Lane>> lanes, uint32_t chain_packets,
             uint32_t queue_packets, uint32_t window_packets, size_t devices = 1,
             size_t at_once_bytes = 0) {
    SourceWorker::Limits limits;
    limits.packet_bytes = kPacketBytes;
    limits.chain_packets = chain_packets;
    limits.window_packets = window_packets;
    limits.queue_packets = queue_packets;
    limits.lanes = static_cast<uint32_t>(lanes.size());
    limits.at_once_bytes = at_once_bytes;
    const std::vector<std::string> names(devices, "a device");
    worker_ = *SourceWorker::Make(names, limits, *arena_, events_);
    worker_->SetTrace(trace_);
    ASSERT_EQ(worker_->Start([&](IoRing&) {
      return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
    }),
              absl::OkStatus());
  }
  // Until that lane, which has no fd, has been polled in so many more rounds.
  void Rounds(const Wire& wire, int more) {
    const int before = wire.polls();
    while (wire.polls() < before + more) {
      worker_->Wake();
      std::this_thread::yield();
    }
  }

  // Opens a device whose stream has so many packets for now. The end to write more to.
  UniqueFd OpenPipeWith(size_t packets) {
    std::array<int, 2> pipe{};
    EXPECT_EQ(::pipe(pipe.data()), 0);
    UniqueFd write_end(pipe[1]);
    const std::string content(packets * kPacketBytes, 'x');
    EXPECT_EQ(::write(write_end.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    worker_->Open(0, UniqueFd(pipe[0]), DeviceState::kStopCopy, nullptr);
    return write_end;
  }
  // Whether it mostly takes less than the 100 ms after which all lanes are looked at anyhow, and
  // which may by chance be nearly over.
  static bool MostlySoon(const std::function<std::chrono::steady_clock::duration()>& once) {
    int attempts = 0;
    int soon = 0;
    for (; attempts < 20 || (attempts < 100 && 2 * soon < attempts); ++attempts) {
      soon += once() < std::chrono::milliseconds(20) ? 1 : 0;
    }
    return 2 * soon >= attempts;
  }

  TraceSink* trace_ = nullptr;
  const std::unique_ptr<Arena> arena_ = *Arena::Create(64, kConfigPayloadBytesMax);
  const Notifier events_ = *Notifier::Create();
  std::unique_ptr<SourceWorker> worker_;
};

TEST_F(SourceWorkerTest, ALaneWithAnFdIsPolledWhenItIsWaitedForAndSaysSoAndNowAndThen) {
  const Watchdog watchdog("lanes that sleep");
  std::array<Wire, 3> wires;
  const UniqueFd first_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  const UniqueFd second_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<WatchedLane>(wires[0], first_fd.get()));
  lanes.push_back(std::make_unique<WatchedLane>(wires[1], second_fd.get()));
  lanes.push_back(std::make_unique<WireLane>(wires[2], /*breaks=*/false));
  Start(std::move(lanes), /*chain_packets=*/8, /*queue_packets=*/16,
        /*window_packets=*/kWindowPackets);
  const auto say = [](const UniqueFd& fd) {
    const uint64_t one = 1;
    ASSERT_EQ(::write(fd.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  };
  // Each time that nothing has come for a while all are polled once, if this thread has to wait for
  // a processor, say.
  const auto left_alone = [&](const Wire& wire) {
    const int before = wire.polls();
    Rounds(wires[2], 200);
    return wire.polls() < before + 50;
  };
  wires[1].Hold(true);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd write_end(pipe[1]);
  worker_->Open(0, UniqueFd(pipe[0]), DeviceState::kStopCopy, nullptr);
  const std::string content(3 * kPacketBytes, 'x');
  ASSERT_EQ(::write(write_end.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  for (const Wire& wire : wires) {
    while (wire.packets() == 0 && !worker_->failed()) std::this_thread::yield();
  }
  // Whether they have left is of no interest as long as the target has not got them.
  Rounds(wires[2], 10);
  EXPECT_TRUE(left_alone(wires[0]));
  EXPECT_TRUE(left_alone(wires[1]));
  EXPECT_EQ(wires[0].arms() + wires[1].arms(), 0);

  // With their receipts it is: the first has left, the second has not and is to say when it does.
  // (In time, and not at the next look at all.)
  for (size_t i = 0; i < wires.size(); ++i) worker_->PutLaneReceipt(i, LaneCount(0, 1));
  Rounds(wires[2], 10);
  EXPECT_EQ(wires[0].arms(), 0);
  EXPECT_GT(wires[1].arms(), 0);
  EXPECT_TRUE(left_alone(wires[0]));
  EXPECT_TRUE(left_alone(wires[1])) << "it does not sleep";
  for (int i = 0; i < 20; ++i) {
    const int before = wires[1].polls();
    say(second_fd);
    while (wires[1].polls() == before) std::this_thread::yield();
    Rounds(wires[2], 10);  // and it sleeps again
  }
  EXPECT_TRUE(left_alone(wires[1])) << "it does not sleep again";
  wires[1].Hold(false);
  say(second_fd);
  while (wires[1].gives() == 0) std::this_thread::yield();
  Rounds(wires[2], 10);
  const int arms = wires[1].arms();
  EXPECT_TRUE(left_alone(wires[1])) << "it has nothing more to say";
  EXPECT_EQ(wires[1].arms(), arms);

  // A lane dies whose fd says nothing of it, and nobody wakes the worker up.
  wires[0].Break();
  std::vector<LaneChange> changes;
  while (changes.empty()) {
    std::this_thread::yield();
    changes = worker_->TakeLaneChanges();
  }
  EXPECT_EQ(changes[0].lane, 0U);
  EXPECT_FALSE(changes[0].up);
  worker_->Stop();
}

// What it still held goes out again without delay, though nothing more is waited for on it.
TEST_F(SourceWorkerTest, ALaneThatFailsAsItGivesBackWhatWasWaitedForIsLostAtOnce) {
  const Watchdog watchdog("a lane that fails");
  EXPECT_TRUE(MostlySoon([this] {
    std::array<Wire, 2> wires;
    const UniqueFd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    std::vector<std::unique_ptr<Lane>> lanes;
    lanes.push_back(std::make_unique<WatchedLane>(wires[0], fd.get()));
    lanes.push_back(std::make_unique<WireLane>(wires[1], /*breaks=*/false));
    Start(std::move(lanes), /*chain_packets=*/4, /*queue_packets=*/16, kWindowPackets);
    const UniqueFd write_end = OpenPipeWith(/*packets=*/4);
    while (wires[0].packets() + wires[1].packets() < 4) std::this_thread::yield();
    EXPECT_EQ(wires[0].packets(), 2U);
    const auto began = std::chrono::steady_clock::now();
    wires[0].Break();
    worker_->PutLaneReceipt(0, LaneCount(0, 1));
    worker_->Wake();
    while (worker_->TakeLaneChanges().empty()) std::this_thread::yield();
    while (wires[1].packets() < 3) std::this_thread::yield();
    const auto took = std::chrono::steady_clock::now() - began;
    worker_->Stop();
    return took;
  })) << "only when all lanes are looked at";
}

TEST_F(SourceWorkerTest, FindsWhatIsGivenBackBetweenTheLastLookAndTheArming) {
  const Watchdog watchdog("a lane that was armed too late");
  // Has nothing to give back before it is armed, and says nothing of it then.
  class LateLane final : public WireLane {
   public:
    LateLane(Wire& wire, int fd) : WireLane(wire, /*breaks=*/false), wire_(wire), fd_(fd) {}
    int wakeup_fd() const override { return fd_; }
    void ArmWakeup() override { wire_.Hold(false); }

   private:
    Wire& wire_;
    const int fd_;
  };
  EXPECT_TRUE(MostlySoon([this] {
    Wire wire;
    wire.Hold(true);
    const UniqueFd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    std::vector<std::unique_ptr<Lane>> lanes;
    lanes.push_back(std::make_unique<LateLane>(wire, fd.get()));
    Start(std::move(lanes), /*chain_packets=*/4, /*queue_packets=*/16, kWindowPackets);
    const UniqueFd write_end = OpenPipeWith(/*packets=*/1);
    while (wire.packets() < 1) std::this_thread::yield();
    const auto began = std::chrono::steady_clock::now();
    worker_->PutLaneReceipt(0, LaneCount(0, 1));
    worker_->Wake();
    while (wire.gives() == 0) std::this_thread::yield();
    const auto took = std::chrono::steady_clock::now() - began;
    worker_->Stop();
    return took;
  })) << "only when all lanes are looked at";
}

// It says when a packet was given back, whoever waits for that.
TEST_F(SourceWorkerTest, ATracedLaneDoesNotRestBeforeItHasGivenAllBack) {
  const Watchdog watchdog("a lane that is traced");
  class Spans final : public TraceSink {
   public:
    void OnSpan(const TraceSpan& span) override { sends += span.name == "send" ? 1 : 0; }
    std::atomic<int> sends{0};
  };
  Spans spans;
  trace_ = &spans;
  Wire wire;
  wire.Hold(true);
  const UniqueFd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<WatchedLane>(wire, fd.get()));
  Start(std::move(lanes), /*chain_packets=*/4, /*queue_packets=*/16, kWindowPackets);
  const UniqueFd write_end = OpenPipeWith(/*packets=*/1);
  while (wire.packets() < 1) std::this_thread::yield();
  while (wire.arms() == 0) std::this_thread::yield();  // though the target has no receipt for it
  EXPECT_EQ(spans.sends, 0);
  wire.Hold(false);
  const uint64_t one = 1;
  ASSERT_EQ(::write(fd.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  while (spans.sends == 0) std::this_thread::yield();
  EXPECT_EQ(spans.sends, 1);
  worker_->Stop();
}

// One that never sleeps looks at such lanes all the same.
TEST_F(SourceWorkerTest, ALaneThatDiesInSilenceIsFoundByABusyWorker) {
  const Watchdog watchdog("a busy worker");
  // The target has at once what goes out on this one: no round has nothing to do.
  class EndlessLane final : public WireLane {
   public:
    EndlessLane(Wire& wire, const std::unique_ptr<SourceWorker>& worker)
        : WireLane(wire, /*breaks=*/false), worker_(worker) {}
    size_t Send(absl::Span<Buffer> packets) override {
      const size_t taken = WireLane::Send(packets);
      sent_packets_ += taken;
      worker_->PutLaneReceipt(1, LaneCount(0, sent_packets_));
      worker_->PutLoaded(0, worker_->device_counters(0).packets.load());
      return taken;
    }

   private:
    const std::unique_ptr<SourceWorker>& worker_;
    uint64_t sent_packets_ = 0;
  };
  std::array<Wire, 2> wires;
  const UniqueFd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<WatchedLane>(wires[0], fd.get()));
  lanes.push_back(std::make_unique<EndlessLane>(wires[1], worker_));
  Start(std::move(lanes), /*chain_packets=*/4, /*queue_packets=*/16, kWindowPackets,
        /*devices=*/1, /*at_once_bytes=*/kPacketBytes);
  Rounds(wires[1], 10);  // with its first look at all behind it
  UniqueFd file(::memfd_create("endless", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), off_t{1} << 40), 0);
  worker_->Open(0, std::move(file), DeviceState::kStopCopy, nullptr);
  while (wires[1].packets() < 1000 && !worker_->failed()) std::this_thread::yield();
  ASSERT_FALSE(worker_->failed()) << worker_->status();
  wires[0].Break();
  std::vector<LaneChange> changes;
  while (changes.empty()) {
    std::this_thread::yield();
    changes = worker_->TakeLaneChanges();
  }
  EXPECT_EQ(changes[0].lane, 0U);
  EXPECT_FALSE(changes[0].up);
  worker_->Stop();
}

TEST_F(SourceWorkerTest, AWindowThatWasFullOpensByParts) {
  const Watchdog watchdog("a full window");
  Wire wire;
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<WireLane>(wire, /*breaks=*/false));
  Start(std::move(lanes), /*chain_packets=*/4, /*queue_packets=*/32,
        /*window_packets=*/kWindowPackets);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd write_end(pipe[1]);
  worker_->Open(0, UniqueFd(pipe[0]), DeviceState::kStopCopy, nullptr);
  const std::string content(size_t{2} * kWindowPackets * kPacketBytes, 'x');
  std::thread writer([&] {
    EXPECT_EQ(::write(write_end.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
  });
  const auto sent = [&] { return worker_->device_counters(0).packets.load(); };
  const auto until_sent = [&](uint32_t packets) {
    while (sent() < packets && !worker_->failed()) {
      worker_->PutLaneReceipt(0, LaneCount(0, wire.headers().size()));
      worker_->Wake();
      std::this_thread::yield();
    }
  };
  until_sent(kWindowPackets);
  // The next is there, and may not be sent.
  while (worker_->stalled_since().count() == 0 && !worker_->failed()) std::this_thread::yield();
  Rounds(wire, 10);
  EXPECT_EQ(sent(), kWindowPackets);
  // Four packets are a part of it: three are not worth it.
  worker_->PutLoaded(0, 3);
  Rounds(wire, 10);
  EXPECT_EQ(sent(), kWindowPackets);
  worker_->PutLoaded(0, 4);
  until_sent(kWindowPackets + 4);
  Rounds(wire, 10);
  EXPECT_EQ(sent(), kWindowPackets + 4);
  EXPECT_FALSE(worker_->failed()) << worker_->status();
  worker_->PutLoaded(0, kWindowPackets + 4);
  until_sent(2 * kWindowPackets);  // lets the writer end
  writer.join();
  worker_->Stop();
}

TEST_F(SourceWorkerTest, FilesInMemoryAreReadInTurnAndNoFurtherThanThePacketThatGoesNext) {
  const Watchdog watchdog("files in memory");
  Wire wire;
  constexpr uint32_t kFiles = 3;
  constexpr uint32_t kPacketsAFile = 5;
  constexpr uint32_t kQueuePackets = 4;
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<WireLane>(wire, /*breaks=*/false));
  Start(std::move(lanes), /*chain_packets=*/4, kQueuePackets, kWindowPackets, kFiles,
        /*at_once_bytes=*/kPacketBytes);
  std::vector<UniqueFd> files;
  for (uint32_t i = 0; i < kFiles; ++i) {
    UniqueFd file(::memfd_create("stream", MFD_CLOEXEC));
    const std::string content(size_t{kPacketsAFile} * kPacketBytes, 'x');
    ASSERT_EQ(::pwrite(file.get(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
    worker_->SetConfig(i, "config");
    files.push_back(std::move(file));
  }
  for (uint32_t i = 0; i < kFiles; ++i) {
    worker_->Open(i, std::move(files[i]), DeviceState::kStopCopy, nullptr);
  }
  // The lane is full: nothing has a receipt yet.
  while (wire.packets() < kQueuePackets && !worker_->failed()) std::this_thread::yield();
  Rounds(wire, 10);
  uint32_t read = 0;
  for (uint32_t i = 0; i < kFiles; ++i) read += worker_->device_counters(i).read_packets.load();
  EXPECT_EQ(wire.packets(), kQueuePackets);
  EXPECT_EQ(read, kQueuePackets + 1);

  constexpr uint32_t kPackets = kFiles * (kPacketsAFile + 1);
  while (wire.packets() < kPackets && !worker_->failed()) {
    worker_->PutLaneReceipt(0, LaneCount(0, wire.packets()));
    worker_->Wake();
    std::this_thread::yield();
  }
  EXPECT_FALSE(worker_->failed()) << worker_->status();
  worker_->Stop();
  std::array<uint32_t, kFiles> next_index{};
  const std::vector<PacketHeader> headers = wire.headers();
  for (size_t i = 0; i < headers.size(); ++i) {
    const bool all_go_on = *std::max_element(next_index.begin(), next_index.end()) <= kPacketsAFile;
    // (Before, not all were open.)
    if (i > kQueuePackets && all_go_on) {
      EXPECT_NE(headers[i].device, headers[i - 1].device) << i;
    }
    EXPECT_EQ(headers[i].index, next_index.at(headers[i].device)++);
  }
  for (const uint32_t packets : next_index) EXPECT_EQ(packets, kPacketsAFile + 1);
}

// What is read goes out while it is in the processor's cache.
TEST_F(SourceWorkerTest, AFileInMemoryIsReadNoFurtherThanEachLaneHasSomethingToSend) {
  const Watchdog watchdog("lanes that send slowly");
  struct Case {
    size_t lanes;
    uint64_t packets;
  };
  for (const Case& wanted : {Case{1, 2}, Case{2, 2}, Case{3, 3}}) {
    SCOPED_TRACE(wanted.lanes);
    std::array<Wire, 3> wires;
    std::vector<std::unique_ptr<Lane>> lanes;
    for (size_t i = 0; i < wanted.lanes; ++i) {
      wires.at(i).Hold(true);
      lanes.push_back(std::make_unique<WireLane>(wires.at(i), /*breaks=*/false));
    }
    Start(std::move(lanes), /*chain_packets=*/4, /*queue_packets=*/8, kWindowPackets,
          /*devices=*/1, /*at_once_bytes=*/kPacketBytes);
    UniqueFd file(::memfd_create("endless", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), off_t{1} << 40), 0);
    worker_->Open(0, std::move(file), DeviceState::kStopCopy, nullptr);
    const auto sent = [&] { return wires[0].packets() + wires[1].packets() + wires[2].packets(); };
    while (sent() < wanted.packets && !worker_->failed()) std::this_thread::yield();
    Rounds(wires[0], 50);
    EXPECT_EQ(sent(), wanted.packets);
    EXPECT_EQ(worker_->device_counters(0).read_packets.load(), wanted.packets);
    EXPECT_EQ(worker_->starved_since().count(), 0) << "lanes that are sending have what they need";
    // The first has sent its own: there is one more to read, and so on.
    wires[0].Hold(false);
    while (sent() < wanted.packets + 4 && !worker_->failed()) Rounds(wires[0], 1);
    EXPECT_FALSE(worker_->failed()) << worker_->status();
    worker_->Stop();
  }
}

// It is the lanes that are slow then, not the target.
TEST_F(SourceWorkerTest, APacketThatWaitsForAFasterLaneIsNoStall) {
  const Watchdog watchdog("a slow lane");
  std::array<Wire, 2> wires;
  constexpr uint32_t kQueuePackets = 4;
  Wire& fast = wires[0];
  Wire& slow = wires[1];
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.reserve(wires.size());
  for (Wire& wire : wires) lanes.push_back(std::make_unique<WireLane>(wire, /*breaks=*/false));
  Start(std::move(lanes), /*chain_packets=*/4, kQueuePackets, /*window_packets=*/4096);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  std::atomic<bool> ended{false};
  std::thread writer([&ended, write = UniqueFd(pipe[1])] {
    const int flags = ::fcntl(write.get(), F_GETFL);
    ::fcntl(write.get(), F_SETFL, flags | O_NONBLOCK);
    const std::string content(kPacketBytes, 'x');
    while (!ended) {
      if (::write(write.get(), content.data(), content.size()) < 0) std::this_thread::yield();
    }
  });
  worker_->Open(0, UniqueFd(pipe[0]), DeviceState::kStopCopy, nullptr);
  const auto sent = [](const Wire& wire) { return wire.packets(); };
  const auto receipt = [&](size_t lane, uint64_t packets) {
    worker_->PutLaneReceipt(lane, LaneCount(0, packets));
    worker_->PutLoaded(0, worker_->device_counters(0).packets.load());
    worker_->Wake();
    std::this_thread::yield();
  };
  // Both are measured: the slow one by two packets that take their time.
  for (uint64_t packets = 1; packets <= 2; ++packets) {
    while (sent(slow) < packets) receipt(0, sent(fast));
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    while (std::chrono::steady_clock::now() < until) receipt(0, sent(fast));
    receipt(1, packets);
  }
  // The fast one gets full. For a while the other, which has room, is not worth using.
  const uint64_t receipted = sent(fast);
  receipt(0, receipted);
  while (sent(fast) < receipted + kQueuePackets) {
    worker_->Wake();
    std::this_thread::yield();
  }
  bool stalled = false;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  while (std::chrono::steady_clock::now() < until) {
    worker_->Wake();
    std::this_thread::yield();
    stalled |= worker_->stalled_since().count() != 0;
  }
  EXPECT_FALSE(stalled);
  EXPECT_FALSE(worker_->failed()) << worker_->status();
  ended = true;
  writer.join();
  worker_->Stop();
}

TEST_F(SourceWorkerTest, WhatALaneDidNotTakeOfABurstGoesOutOnAnother) {
  const Watchdog watchdog("a burst that breaks");
  Wire first;
  Wire second;
  std::vector<std::unique_ptr<Lane>> lanes;
  lanes.push_back(std::make_unique<WireLane>(first, /*breaks=*/true));
  lanes.push_back(std::make_unique<WireLane>(second, /*breaks=*/false));
  Start(std::move(lanes), /*chain_packets=*/8, /*queue_packets=*/16,
        /*window_packets=*/kWindowPackets);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  worker_->SetConfig(0, "config");
  std::thread writer([write = UniqueFd(pipe[1])] {
    const std::string content(kDataPackets * kPacketBytes, 'x');
    EXPECT_EQ(::write(write.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    // (Closed with the thread's function: the end.)
  });
  worker_->Open(0, UniqueFd(pipe[0]), DeviceState::kStopCopy, nullptr);
  std::set<uint32_t> arrived;
  while (arrived.size() < kDataPackets + 1 && !worker_->failed()) {
    const std::vector<PacketHeader> on_first = first.headers();
    // A broken lane's receipts do not come any more.
    if (!first.broken()) worker_->PutLaneReceipt(0, LaneCount(0, on_first.size()));
    const std::vector<PacketHeader> on_second = second.headers();
    worker_->PutLaneReceipt(1, LaneCount(0, on_second.size()));
    for (const auto* headers : {&on_first, &on_second}) {
      for (const PacketHeader& header : *headers) arrived.insert(header.index);
    }
    // When all that the window lets out is sent, it moves at once.
    const uint32_t sent = worker_->device_counters(0).packets.load();
    if (arrived.size() == sent) worker_->PutLoaded(0, sent);
    worker_->Wake();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_FALSE(worker_->failed()) << worker_->status();
  writer.join();
  worker_->Stop();

  ASSERT_TRUE(first.broken()) << "it was given no burst";
  std::set<uint32_t> had;
  for (const PacketHeader& header : first.headers()) had.insert(header.index);
  std::set<uint32_t> indexes;
  uint64_t sequence = 0;
  uint64_t again = 0;
  uint64_t left_over = 0;  // of the burst that broke the first lane
  for (const PacketHeader& header : second.headers()) {
    EXPECT_EQ(header.lane_sequence, LaneCount(0, sequence++));
    EXPECT_TRUE(indexes.insert(header.index).second) << header.index << " twice";
    EXPECT_LE(header.epoch, 1U);
    again += header.epoch;
    const bool had_it = had.count(header.index) > 0;
    EXPECT_TRUE(!had_it || header.epoch == 1) << header.index;
    left_over += !had_it && header.epoch == 1 ? 1 : 0;
  }
  EXPECT_GT(left_over, 0U);
  EXPECT_EQ(worker_->lane_counters(1).sent_again.load(), again);
  const std::vector<LaneChange> changes = worker_->TakeLaneChanges();
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].lane, 0U);
}

}  // namespace
}  // namespace godwit
