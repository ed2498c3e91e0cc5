// Goal: a target that holds receipts sends one for so many packets as it was told, at once, or for
// half of a lane's queue or a quarter of all (three quarters and 16 packets if it was told more
// than half), or for half of a window, and for fewer only after a while; but for the first packet
// of a lane at once; and one that does not hold them as soon as there is nothing to do.
#include "engine/target_worker.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "engine/loader.h"
#include "engine/packet.h"
#include "engine/reorder_window.h"
#include "tests/engine/byte_sources.h"
#include "tests/engine/fake_device.h"
#include "tests/engine/session_world.h"
#include "tests/engine/wire_image.h"
#include "transport/tcp/tcp_lane.h"

namespace godwit {
namespace {

using std::chrono::steady_clock;

constexpr uint32_t kWindowPackets = 64;
constexpr uint32_t kHeldPackets = 4;
// Those that hold receipts do so for longer than that; a machine that is slower proves nothing.
constexpr std::chrono::milliseconds kSoon{60};
constexpr int kAttempts = 50;
constexpr std::chrono::seconds kAttemptsCap{120};

// A worker whose loader's thread does not run: what comes stays in the window, or if it helps is
// written by the worker.
class TargetWorkerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto arena = Arena::Create(2 * kWindowPackets, kConfigPayloadBytesMax);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    events_.emplace(*Notifier::Create());
    loader_news_.emplace(*Notifier::Create());
  }
  void TearDown() override { End(); }

  void Begin() {
    std::vector<UniqueFd> sockets;
    sockets.reserve(lanes_);
    sources_.clear();
    sources_.reserve(lanes_);
    for (uint32_t i = 0; i < lanes_; ++i) {
      FdPair pair = MakeSocketPair(SOCK_STREAM);
      sources_.push_back({std::move(pair.write), 0});
      sockets.push_back(std::move(pair.read));
    }
    window_ = std::make_unique<ReorderWindow>(window_packets_);
    loader_ = std::make_unique<Loader>(device_, UniqueFd(::memfd_create("target", MFD_CLOEXEC)),
                                       *window_, window_packets_, *loader_news_);
    if (helps_) loader_->LetWorkerHelp(/*driver=*/false);
    const LaneLimits lane_limits = {kFrameHeaderBytes, kConfigPayloadBytesMax, 2};
    auto worker = TargetWorker::Make({loader_.get()},
                                     {kConfigPayloadBytesMax, queue_packets_, lanes_, lane_limits},
                                     *arena_, *events_);
    ASSERT_TRUE(worker.ok()) << worker.status();
    worker_ = *std::move(worker);
    ASSERT_EQ(worker_->Start([&sockets, lane_limits](IoRing& ring) {
      std::vector<std::unique_ptr<Lane>> lanes;
      lanes.reserve(sockets.size());
      for (UniqueFd& socket : sockets) {
        lanes.push_back(TcpLane::Make(std::move(socket), ring, lane_limits, LaneRole::kReceiver,
                                      "a test's lane"));
      }
      return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
    }),
              absl::OkStatus());
    stream_.clear();
    events_->Clear();  // of the worker before
  }
  void End() {
    sources_.clear();
    if (worker_ != nullptr) worker_->Stop();
    worker_.reset();
    loader_.reset();
    window_.reset();
  }

  // Returns once the worker has it.
  void SendPacket(uint32_t lane = 0) {
    SendPacketOf(static_cast<uint32_t>(stream_.size()), lane);
    stream_ += "x";
  }
  // Each packet is a byte of the stream.
  void SendPacketOf(uint32_t index, uint32_t lane = 0) {
    Source& source = sources_[lane];
    wire::Frame frame = wire::DataFrame(0, index, std::string(index, 'x'), "x");
    frame.lane_sequence = source.sent_packets++;
    WriteOut(source.socket.get(), wire::WithLength(wire::Encode(frame)));
    while (worker_->lane_counters(lane).packets.load() < source.sent_packets) {
      std::this_thread::yield();
    }
  }
  bool Told(std::chrono::milliseconds within) const {
    pollfd news = {events_->fd(), POLLIN, 0};
    return ::poll(&news, 1, static_cast<int>(within.count())) == 1;
  }
  void AwaitNews() {
    ASSERT_TRUE(Told(kSessionCap));
    events_->Clear();
  }

  // With a worker of its own each time, until once it is true and has not taken long.
  void UntilShown(const std::function<bool()>& shown) {
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      Begin();
      if (HasFatalFailure()) return;
      const auto began = steady_clock::now();
      const bool so = shown();
      const bool soon = steady_clock::now() - began < kSoon;
      End();
      if (so && soon) return;
    }
    FAIL() << "in none of " << kAttempts << " attempts";
  }
  // On so many lanes in turn, after each one's first packet.
  bool TellsOnceThereAre(uint32_t packets, uint32_t lanes = 1) {
    for (uint32_t lane = 0; lane < lanes; ++lane) {
      SendPacket(lane);
      AwaitNews();
    }
    for (uint32_t i = 1; i < packets; ++i) SendPacket(i % lanes);
    if (Told(std::chrono::milliseconds(5))) return false;
    SendPacket();
    return Told(std::chrono::milliseconds(5));
  }

  struct Source {
    UniqueFd socket;
    uint64_t sent_packets = 0;
  };
  uint32_t queue_packets_ = 64;
  uint32_t lanes_ = 1;
  uint32_t window_packets_ = kWindowPackets;
  bool helps_ = false;
  std::vector<Source> sources_;
  std::unique_ptr<Arena> arena_;
  std::optional<Notifier> events_;
  std::optional<Notifier> loader_news_;
  FakeDevice device_{FakeDevice::Script{}};
  std::unique_ptr<ReorderWindow> window_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<TargetWorker> worker_;
  std::string stream_;
};

TEST_F(TargetWorkerTest, TellsOfEachPacketWhenThereIsNothingElseToDo) {
  const Watchdog watchdog("a worker that tells of each packet");
  Begin();
  for (int i = 0; i < 10; ++i) {
    SendPacket();
    AwaitNews();
  }
}

TEST_F(TargetWorkerTest, HoldsReceiptsUntilThereAreEnoughPackets) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  UntilShown([this] {
    worker_->SetReceiptPackets(kHeldPackets, /*hold=*/true);
    return TellsOnceThereAre(kHeldPackets);
  });
}

TEST_F(TargetWorkerTest, TellsOfThreeQuartersOfALanesQueueHoweverManyItMayHold) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  queue_packets_ = 12;
  lanes_ = 4;
  UntilShown([this] {
    worker_->SetReceiptPackets(kWindowPackets, /*hold=*/true);
    return TellsOnceThereAre(9);
  });
}

TEST_F(TargetWorkerTest, TellsOfALanesPartOfWhatItMayHoldIfThatIsMoreThanHalfItsQueue) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  queue_packets_ = 12;
  lanes_ = 4;
  UntilShown([this] {
    worker_->SetReceiptPackets(4 * 7, /*hold=*/true);
    return TellsOnceThereAre(7);
  });
}

TEST_F(TargetWorkerTest, TellsOfHalfALanesQueueIfItsPartOfWhatItMayHoldIsNoMore) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  queue_packets_ = 12;
  lanes_ = 4;
  UntilShown([this] {
    worker_->SetReceiptPackets(4 * 6, /*hold=*/true);
    return TellsOnceThereAre(6);
  });
}

TEST_F(TargetWorkerTest, TellsOfNoMoreThanThreeQuartersOfASmallQueue) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  queue_packets_ = 7;
  lanes_ = 2;
  UntilShown([this] {
    worker_->SetReceiptPackets(2 * 7, /*hold=*/true);
    return TellsOnceThereAre(5);
  });
}

TEST_F(TargetWorkerTest, TellsOfAQuarterOfAllLanesQueuesIfALanesPartIsNoMoreThanHalfOfItsQueue) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  queue_packets_ = 8;
  lanes_ = 4;
  UntilShown([this] {
    worker_->SetReceiptPackets(4 * 4, /*hold=*/true);
    return TellsOnceThereAre(8, lanes_);
  });
}

// The packets behind it have been told of as received, and the window is full: the source waits for
// what is loaded.
TEST_F(TargetWorkerTest, TellsOfAWindowThatWasFullWhenThePacketThatHeldItUpHasCome) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  window_packets_ = 4;
  helps_ = true;
  UntilShown([this] {
    worker_->SetReceiptPackets(2, /*hold=*/true);
    SendPacketOf(1);
    AwaitNews();
    SendPacketOf(2);
    SendPacketOf(3);
    AwaitNews();
    SendPacketOf(0);
    return Told(std::chrono::milliseconds(5)) && window_->loaded_packets() == 4;
  });
}

TEST_F(TargetWorkerTest, TellsOfSixteenPacketsHoweverManyItMayHold) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  queue_packets_ = 12;
  lanes_ = 4;
  UntilShown([this] {
    worker_->SetReceiptPackets(kWindowPackets, /*hold=*/true);
    return TellsOnceThereAre(16, lanes_);
  });
}

TEST_F(TargetWorkerTest, TellsOfAsManyAsItWasLastToldThoughItMayHoldMore) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  UntilShown([this] {
    worker_->SetReceiptPackets(kWindowPackets / 2, /*hold=*/true);
    worker_->SetReceiptPackets(kHeldPackets, /*hold=*/false);
    return TellsOnceThereAre(kHeldPackets);
  });
}

TEST_F(TargetWorkerTest, TellsOfALanesFirstPacketAtOnceAllTheSame) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  UntilShown([this] {
    worker_->SetReceiptPackets(kHeldPackets, /*hold=*/true);
    SendPacket();
    AwaitNews();
    return true;
  });
}

TEST_F(TargetWorkerTest, HoldsThemForAWhileOnly) {
  const Watchdog watchdog("a worker that holds receipts");
  Begin();
  worker_->SetReceiptPackets(kHeldPackets, /*hold=*/true);
  SendPacket();
  AwaitNews();
  const auto began = steady_clock::now();
  SendPacket();
  AwaitNews();  // that it comes at all
  EXPECT_GT(steady_clock::now() - began, kSoon);
  SendPacket();
  AwaitNews();
}

// While packets keep coming there is no hurry to tell of them; but there is an end to it.
TEST_F(TargetWorkerTest, HoldsThemLongerWhileMoreKeepComing) {
  const Watchdog watchdog("a worker that holds receipts", kAttemptsCap);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Begin();
    worker_->SetReceiptPackets(kWindowPackets / 2, /*hold=*/true);
    SendPacket();
    AwaitNews();
    const uint32_t times_due = worker_->receipts_due();
    const auto began = steady_clock::now();
    bool they_kept_coming = true;
    bool told = false;
    for (uint32_t i = 0; !told && i < kWindowPackets / 2 - 1; ++i) {
      const auto sent_at = steady_clock::now();
      SendPacket();
      told = Told(std::chrono::milliseconds(40));
      they_kept_coming &= steady_clock::now() - sent_at < kSoon;
    }
    const auto held = steady_clock::now() - began;
    ASSERT_TRUE(told) << "packets came for " << held / std::chrono::milliseconds(1) << " ms";
    EXPECT_EQ(worker_->receipts_due(), times_due + 1);
    End();
    if (!they_kept_coming) continue;
    EXPECT_GT(held, std::chrono::milliseconds(200));
    return;
  }
  FAIL() << "in none of " << kAttempts << " attempts did packets come often enough";
}

// A queue pair, to a worker: what has come is there to be polled, and an fd says so of what comes
// after it was armed.
class WatchedReceiver final : public Lane {
 public:
  // What comes in, frame by frame; the one behind `race` between the last look and the arming.
  struct Wire {
    Mutex mutex;
    std::deque<std::string> frames ABSL_GUARDED_BY(mutex);
    std::optional<std::string> race ABSL_GUARDED_BY(mutex);
    std::atomic<bool> closed{false};
  };
  WatchedReceiver(Wire& wire, size_t queue_packets) : wire_(wire), queue_packets_(queue_packets) {}

  size_t Send(absl::Span<Buffer> /*packets*/) override { return 0; }
  size_t PollSent(absl::Span<Buffer> /*sent*/) override { return 0; }
  size_t PostReceives(absl::Span<Buffer> buffers) override {
    for (Buffer& buffer : buffers) posted_.push_back(std::move(buffer));
    return buffers.size();
  }
  size_t receives_wanted() const override {
    return status_.ok() ? queue_packets_ - posted_.size() : 0;
  }
  size_t PollReceived(absl::Span<Buffer> received) override {
    MutexLock lock(wire_.mutex);
    size_t count = 0;
    while (count < received.size() && !posted_.empty() && !wire_.frames.empty()) {
      const std::string frame = std::move(wire_.frames.front());
      wire_.frames.pop_front();
      Buffer buffer = std::move(posted_.front());
      posted_.pop_front();
      std::memcpy(buffer.header(kFrameHeaderBytes), frame.data(), frame.size());
      buffer.set_payload_bytes(frame.size() - kFrameHeaderBytes);
      received[count++] = std::move(buffer);
    }
    return count;
  }
  void Close() override {
    if (status_.ok()) status_ = absl::CancelledError("closed");
    wire_.closed = true;
  }
  bool quiescent() const override { return true; }
  bool peer_closed() const override { return false; }
  const absl::Status& status() const override { return status_; }
  const std::string& name() const override { return name_; }
  int wakeup_fd() const override { return fd_.get(); }
  void ArmWakeup() override {
    MutexLock lock(wire_.mutex);
    if (!wire_.race.has_value()) return;
    wire_.frames.push_back(*std::exchange(wire_.race, std::nullopt));
  }

 private:
  Wire& wire_;
  const size_t queue_packets_;
  const UniqueFd fd_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  const std::string name_ = "a queue pair";
  std::deque<Buffer> posted_;
  absl::Status status_;
};

class TargetWorkerWatchTest : public TargetWorkerTest {
 protected:
  static constexpr uint32_t kQueuePackets = 16;

  void Begin() {
    window_ = std::make_unique<ReorderWindow>(window_packets_);
    loader_ = std::make_unique<Loader>(device_, UniqueFd(::memfd_create("target", MFD_CLOEXEC)),
                                       *window_, window_packets_, *loader_news_);
    if (helps_) loader_->LetWorkerHelp(/*driver=*/false);
    const LaneLimits lane_limits = {kFrameHeaderBytes, kConfigPayloadBytesMax, kQueuePackets};
    worker_ = *TargetWorker::Make({loader_.get()},
                                  {kConfigPayloadBytesMax, kQueuePackets, 1, lane_limits}, *arena_,
                                  *events_);
    ASSERT_EQ(worker_->Start([this](IoRing&) {
      std::vector<std::unique_ptr<Lane>> lanes;
      lanes.push_back(std::make_unique<WatchedReceiver>(wire_, kQueuePackets));
      return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
    }),
              absl::OkStatus());
    stream_.clear();
  }
  // As they go out on the lane one after the other.
  std::string NextFrame() {
    wire::Frame frame = wire::DataFrame(0, static_cast<uint32_t>(stream_.size()), stream_, "x");
    frame.lane_sequence = stream_.size();
    stream_ += "x";
    return wire::Encode(frame);
  }

  WatchedReceiver::Wire wire_;
};

TEST_F(TargetWorkerWatchTest, FindsWhatCameBetweenTheLastLookAndTheArming) {
  const Watchdog watchdog("a lane that was armed too late");
  // More often than a look at all lanes, each 100 ms, would find it by chance.
  int attempts = 0;
  int soon = 0;
  for (; attempts < 20 || (attempts < 100 && 2 * soon < attempts); ++attempts) {
    {
      MutexLock lock(wire_.mutex);
      wire_.frames.clear();
      wire_.race = NextFrame();
    }
    const auto began = steady_clock::now();
    Begin();
    if (HasFatalFailure()) return;
    while (worker_->lane_counters(0).packets.load() == 0) std::this_thread::yield();
    soon += steady_clock::now() - began < std::chrono::milliseconds(30) ? 1 : 0;
    End();
  }
  EXPECT_GE(2 * soon, attempts);
}

TEST_F(TargetWorkerWatchTest, WhatComesBehindDamageGoesBackToTheArena) {
  const Watchdog watchdog("a lane that was damaged");
  {
    MutexLock lock(wire_.mutex);
    for (uint32_t i = 0; i < kQueuePackets; ++i) wire_.frames.push_back(NextFrame());
    wire_.frames.front()[20] ^= 1;
  }
  Begin();
  while (!wire_.closed) std::this_thread::yield();
  // The worker looks at a lane that has gone down until it is replaced.
  const auto all_taken = [this] {
    MutexLock lock(wire_.mutex);
    return wire_.frames.empty();
  };
  while (!all_taken()) {
    worker_->Wake();
    std::this_thread::yield();
  }
  while (arena_->free_count() < arena_->buffer_count()) std::this_thread::yield();
  EXPECT_EQ(worker_->lane_counters(0).packets.load(), 0U);
}

}  // namespace
}  // namespace godwit
