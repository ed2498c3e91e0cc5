// Goal: what a lane did not take of a burst goes out on another one, whole, once, and in its place;
// a window that was full opens by parts; a file in memory is read no further than what is sent
// next.
#include "engine/source_worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/packet.h"
#include "tests/engine/source_worker_world.h"

namespace godwit {
namespace {

constexpr uint32_t kDataPackets = 512;

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
