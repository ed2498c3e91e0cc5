// Goal: a lane with an fd of its own is left alone until it has something that is waited for, and
// until it says so, but not for ever; what comes between the last look and the arming is found.
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/source_worker.h"
#include "tests/engine/source_worker_world.h"

namespace godwit {
namespace {

using SourceWorkerWakeupTest = SourceWorkerTest;

TEST_F(SourceWorkerWakeupTest, ALaneWithAnFdIsPolledWhenItIsWaitedForAndSaysSoAndNowAndThen) {
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
TEST_F(SourceWorkerWakeupTest, ALaneThatFailsAsItGivesBackWhatWasWaitedForIsLostAtOnce) {
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

TEST_F(SourceWorkerWakeupTest, FindsWhatIsGivenBackBetweenTheLastLookAndTheArming) {
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
TEST_F(SourceWorkerWakeupTest, ATracedLaneDoesNotRestBeforeItHasGivenAllBack) {
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
TEST_F(SourceWorkerWakeupTest, ALaneThatDiesInSilenceIsFoundByABusyWorker) {
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

}  // namespace
}  // namespace godwit
