// A source's worker over lanes that are told what to do: what they take, give back and say.
#ifndef GODWIT_TESTS_ENGINE_SOURCE_WORKER_WORLD_H_
#define GODWIT_TESTS_ENGINE_SOURCE_WORKER_WORLD_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "engine/packet.h"
#include "engine/source_worker.h"
#include "tests/engine/session_world.h"

namespace godwit {

inline constexpr size_t kPacketBytes = 4096;
inline constexpr uint32_t kWindowPackets = 16;  // so many are let out at once

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

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_SOURCE_WORKER_WORLD_H_
