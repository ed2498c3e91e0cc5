// What a TCP lane costs on loopback: both ends and the kernel between them, on one thread.
#include <absl/types/span.h>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "base/arena.h"
#include "base/io_ring.h"
#include "base/units.h"
#include "engine/packet.h"
#include "transport/tcp/tcp_lane.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {
namespace {

constexpr uint32_t kQueuePackets = 8;
constexpr std::chrono::seconds kPatience{10};

// Both ends of one lane and what they need.
class LanePair {
 public:
  static std::unique_ptr<LanePair> Make(size_t payload_bytes) {
    std::unique_ptr<LanePair> pair(new LanePair);
    auto listener = ListenTcp({"127.0.0.1", 0});
    if (!listener.ok()) return nullptr;
    const auto port = LocalPort(listener->get());
    if (!port.ok()) return nullptr;
    auto near = ConnectTcp({"127.0.0.1", *port}, kPatience);
    auto far = AcceptTcp(listener->get(), std::chrono::steady_clock::now() + kPatience);
    auto ring = IoRing::Create(4 * TcpLane::kRingEntriesMax);
    auto arena = Arena::Create(size_t{3} * kQueuePackets, payload_bytes);
    if (!near.ok() || !far.ok() || !ring.ok() || !arena.ok()) return nullptr;
    TuneLaneSocket(near->get());
    TuneLaneSocket(far->get());
    pair->payload_bytes_ = payload_bytes;
    pair->ring_ = *std::move(ring);
    pair->arena_ = *std::move(arena);
    const LaneLimits limits = {kFrameHeaderBytes, payload_bytes, kQueuePackets};
    pair->sender_ =
        TcpLane::Make(*std::move(near), *pair->ring_, limits, LaneRole::kSender, "tcp out");
    pair->receiver_ =
        TcpLane::Make(*std::move(far), *pair->ring_, limits, LaneRole::kReceiver, "tcp in");
    return pair;
  }
  ~LanePair() {
    if (receiver_ == nullptr) return;
    sender_->Close();
    receiver_->Close();
    while (!sender_->quiescent() || !receiver_->quiescent()) {
      ring_->Wait(std::chrono::milliseconds(1));
    }
  }

  // Keeps both queues full until a message has come; false: the lane broke.
  bool ReceiveOne() {
    while (received_ == 0) {
      Fill();
      ring_->Wait(kPatience);
      std::array<Buffer, kQueuePackets> done;
      static_cast<void>(sender_->PollSent(absl::MakeSpan(done)));
      std::array<Buffer, kQueuePackets> messages;
      received_ = receiver_->PollReceived(absl::MakeSpan(messages));
      if (!sender_->status().ok() || !receiver_->status().ok()) return false;
    }
    --received_;
    return true;
  }

 private:
  LanePair() = default;

  void Fill() {
    for (size_t wanted = receiver_->receives_wanted(); wanted > 0; --wanted) {
      Buffer buffer = arena_->TryAcquire();
      if (receiver_->PostReceives(absl::MakeSpan(&buffer, 1)) == 0) break;
    }
    while (true) {
      Buffer buffer = arena_->TryAcquire();
      if (!buffer) return;
      buffer.set_payload_bytes(payload_bytes_);
      if (sender_->Send(absl::MakeSpan(&buffer, 1)) == 0) return;
    }
  }

  size_t payload_bytes_ = 0;
  size_t received_ = 0;  // and not yet counted
  std::unique_ptr<IoRing> ring_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<TcpLane> sender_;
  std::unique_ptr<TcpLane> receiver_;
};

void TcpLanePostAndPoll(benchmark::State& state) {
  const auto payload_bytes = static_cast<size_t>(state.range(0));
  const std::unique_ptr<LanePair> pair = LanePair::Make(payload_bytes);
  if (pair == nullptr) {
    state.SkipWithError("no lane over loopback");
    return;
  }
  for ([[maybe_unused]] auto _ : state) {
    if (!pair->ReceiveOne()) {
      state.SkipWithError("the lane broke");
      break;
    }
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(TcpLanePostAndPoll)->Arg(4 * kKiB)->Arg(64 * kKiB)->Arg(kMiB)->UseRealTime();

}  // namespace
}  // namespace godwit
