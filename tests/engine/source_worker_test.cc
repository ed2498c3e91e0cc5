// Goal: what a lane did not take of a burst goes out on another one, whole, once, and in its place.
#include "engine/source_worker.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <thread>

#include "base/mutex.h"
#include "engine/packet.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

constexpr size_t kPacketBytes = 4096;
constexpr uint32_t kDataPackets = 64;
constexpr uint32_t kWindowPackets = 8;

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

 private:
  mutable Mutex mutex_;
  std::vector<PacketHeader> headers_ ABSL_GUARDED_BY(mutex_);
};

// Takes everything; or of its first burst only one packet, and is broken from then on.
class WireLane final : public Lane {
 public:
  WireLane(Wire& wire, bool breaks) : wire_(wire), breaks_(breaks) {}

  size_t Send(absl::Span<Buffer> packets) override {
    if (!status_.ok()) return 0;
    const bool burst = packets.size() > 1;
    const size_t taken = breaks_ && burst ? 1 : packets.size();
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
    const size_t count = std::min(sent.size(), sent_.size());
    for (Buffer& buffer : sent.first(count)) {
      buffer = std::move(sent_.front());
      sent_.pop_front();
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

TEST(SourceWorkerTest, WhatALaneDidNotTakeOfABurstGoesOutOnAnother) {
  const Watchdog watchdog("a burst that breaks");
  const auto arena = *Arena::Create(64, kConfigPayloadBytesMax);
  const Notifier events = *Notifier::Create();
  SourceWorker::Limits limits;
  limits.packet_bytes = kPacketBytes;
  limits.chain_packets = 8;
  limits.window_packets = kWindowPackets;
  limits.queue_packets = 16;
  limits.lanes = 2;
  const auto worker = *SourceWorker::Make({"a device"}, limits, *arena, events);
  Wire broken;
  Wire whole;
  ASSERT_EQ(worker->Start([&](IoRing&) {
    std::vector<std::unique_ptr<Lane>> lanes;
    lanes.push_back(std::make_unique<WireLane>(broken, /*breaks=*/true));
    lanes.push_back(std::make_unique<WireLane>(whole, /*breaks=*/false));
    return absl::StatusOr<std::vector<std::unique_ptr<Lane>>>(std::move(lanes));
  }),
            absl::OkStatus());
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  worker->SetConfig(0, "config");
  std::thread writer([write = UniqueFd(pipe[1])] {
    const std::string content(kDataPackets * kPacketBytes, 'x');
    EXPECT_EQ(::write(write.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    // (Closed with the thread's function: the end.)
  });
  worker->Open(0, UniqueFd(pipe[0]), DeviceState::kStopCopy, nullptr);
  const auto receipt = [&] {
    worker->PutLaneReceipt(1, LaneCount(0, whole.headers().size()));
    worker->Wake();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  // As many as the window lets out, one by one as they are read; so many are ready behind them.
  const auto& device = worker->device_counters(0);
  while (device.read_packets.load() < kWindowPackets + 2 * limits.chain_packets) receipt();
  const size_t receipted = broken.headers().size();
  worker->PutLaneReceipt(0, LaneCount(0, receipted));
  receipt();
  // From here on the window moves, and packets go out in bursts.
  while (whole.headers().size() + receipted < kDataPackets + 1 && !worker->failed()) {
    worker->PutLoaded(0, device.packets.load());
    receipt();
  }
  EXPECT_FALSE(worker->failed()) << worker->status();
  writer.join();
  worker->Stop();

  std::vector<PacketHeader> lost = broken.headers();
  std::map<uint32_t, PacketHeader> by_index;
  for (size_t i = 0; i < receipted; ++i) by_index.emplace(lost[i].index, lost[i]);
  lost.erase(lost.begin(), lost.begin() + static_cast<ptrdiff_t>(receipted));
  uint64_t sequence = 0;
  for (const PacketHeader& header : whole.headers()) {
    EXPECT_EQ(header.lane_sequence, LaneCount(0, sequence++));
    EXPECT_TRUE(by_index.emplace(header.index, header).second) << header.index << " twice";
  }
  EXPECT_EQ(by_index.size(), kDataPackets + 1);
  EXPECT_EQ(by_index.rbegin()->first, kDataPackets);
  EXPECT_TRUE(by_index.rbegin()->second.is_config());
  // Both what the broken lane took and what it left were counted as sent once.
  ASSERT_FALSE(lost.empty());
  for (const PacketHeader& header : lost) EXPECT_EQ(by_index[header.index].epoch, 1);
  const auto again = std::count_if(by_index.begin(), by_index.end(),
                                   [](const auto& entry) { return entry.second.epoch > 0; });
  EXPECT_GT(again, static_cast<ptrdiff_t>(lost.size())) << "it was broken by no burst";
  EXPECT_EQ(worker->lane_counters(1).sent_again.load(), static_cast<uint64_t>(again));
  const std::vector<LaneChange> changes = worker->TakeLaneChanges();
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_EQ(changes[0].lane, 0U);
}

}  // namespace
}  // namespace godwit
