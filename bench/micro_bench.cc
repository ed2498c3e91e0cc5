// What each step of a packet's way costs by itself, so that a change of one shows. Numbers of one
// machine compare with numbers of that machine only.
#include <absl/types/span.h>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/bounded_ring.h"
#include "base/crc32c.h"
#include "base/units.h"
#include "engine/packet.h"
#include "engine/packet_seal.h"
#include "engine/reorder_window.h"
#include "vfio/soft_content.h"

namespace godwit {
namespace {

constexpr uint64_t kSeed = 7;

void Crc32c(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  std::vector<std::byte> buffer(bytes);
  SoftContent(kSeed).Fill(0, absl::MakeSpan(buffer));
  uint32_t crc = kCrc32cOfNothing;
  for ([[maybe_unused]] auto _ : state) {
    crc = Crc32cExtend(crc, buffer);
    benchmark::DoNotOptimize(crc);
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(Crc32c)->Arg(4 * kKiB)->Arg(64 * kKiB)->Arg(kMiB);

PacketHeader SomeHeader() {
  PacketHeader header;
  header.device = 1;
  header.payload_bytes = kMiB;
  header.lane_sequence = 9;
  header.stream_offset = 2 * kMiB;
  header.index = 2;
  return header;
}

void PacketHeaderEncode(benchmark::State& state) {
  PacketHeader header = SomeHeader();
  std::array<std::byte, kFrameHeaderBytes> bytes;
  for ([[maybe_unused]] auto _ : state) {
    EncodePacketHeader(header, bytes.data());
    benchmark::DoNotOptimize(bytes);
    ++header.lane_sequence;
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kFrameHeaderBytes));
}
BENCHMARK(PacketHeaderEncode);

void PacketHeaderDecode(benchmark::State& state) {
  std::array<std::byte, kFrameHeaderBytes> bytes;
  EncodePacketHeader(SomeHeader(), bytes.data());
  for ([[maybe_unused]] auto _ : state) {
    const auto header = DecodePacketHeader(bytes.data(), kMiB);
    if (!header.ok()) state.SkipWithError("the header was refused");
    benchmark::DoNotOptimize(header);
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kFrameHeaderBytes));
}
BENCHMARK(PacketHeaderDecode);

// All that a target does with a packet before its window takes it: the header, and the payload's
// CRC.
void PacketCheck(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const bool crc = state.range(1) != 0;
  std::vector<std::byte> payload(bytes);
  SoftContent(kSeed).Fill(0, absl::MakeSpan(payload));
  PacketHeader header = SomeHeader();
  header.payload_bytes = static_cast<uint32_t>(bytes);
  if (crc) header.crc_after = Crc32cExtend(header.crc_before, payload);
  std::array<std::byte, kFrameHeaderBytes> encoded;
  EncodePacketHeader(header, encoded.data());
  for ([[maybe_unused]] auto _ : state) {
    const auto decoded = DecodePacketHeader(encoded.data(), bytes);
    if (!decoded.ok() ||
        !CheckPacket(*decoded, payload, {kMiB, kDevicesMax, crc}, header.lane_sequence).ok()) {
      state.SkipWithError("the packet was refused");
    }
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(PacketCheck)
    ->ArgNames({"bytes", "crc"})
    ->Args({64 * kKiB, 1})
    ->Args({kMiB, 1})
    ->Args({kMiB, 0});

// A packet in a buffer of its own, to be sealed.
class Sealed {
 public:
  explicit Sealed(size_t bytes)
      : arena_(Arena::Create(1, bytes).value()),
        packet_(arena_->TryAcquire()),
        seal_(PacketSeal::Make(TrafficKey{}).value()) {
    packet_.set_payload_bytes(bytes);
    SoftContent(kSeed).Fill(0, absl::MakeSpan(packet_.payload(), bytes));
    header_ = SomeHeader();
    header_.payload_bytes = static_cast<uint32_t>(bytes);
    header_.sealed = true;
  }
  // Another index each time, as a seal requires.
  void Seal() {
    ++header_.index;
    EncodePacketHeader(header_, packet_.header(kFrameHeaderBytes));
    seal_->Seal(/*lane=*/0, packet_);
  }
  bool Open() { return seal_->Open(/*lane=*/0, packet_).ok(); }

 private:
  const std::unique_ptr<Arena> arena_;
  Buffer packet_;
  const std::unique_ptr<PacketSeal> seal_;
  PacketHeader header_;
};

void PacketSealed(benchmark::State& state) {
  Sealed packet(static_cast<size_t>(state.range(0)));
  for ([[maybe_unused]] auto _ : state) packet.Seal();
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(PacketSealed)->Arg(64 * kKiB)->Arg(kMiB);

void PacketOpened(benchmark::State& state) {
  Sealed packet(static_cast<size_t>(state.range(0)));
  for ([[maybe_unused]] auto _ : state) {
    state.PauseTiming();
    packet.Seal();
    state.ResumeTiming();
    if (!packet.Open()) state.SkipWithError("the packet did not open");
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(PacketOpened)->Arg(64 * kKiB)->Arg(kMiB);

void ArenaAcquireRelease(benchmark::State& state) {
  const std::unique_ptr<Arena> arena = Arena::Create(16, 4 * kKiB).value();
  for ([[maybe_unused]] auto _ : state) {
    const Buffer buffer = arena->TryAcquire();
    benchmark::DoNotOptimize(buffer.payload());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(ArenaAcquireRelease);

// One thread on both ends: the instructions, without the cache lines that two cores would pass.
void BoundedRingPushPop(benchmark::State& state) {
  BoundedRing<uint64_t> ring(64);
  uint64_t value = 0;
  for ([[maybe_unused]] auto _ : state) {
    if (!ring.TryPush(value + 1) || !ring.TryPop(value)) state.SkipWithError("the ring refused");
  }
  benchmark::DoNotOptimize(value);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BoundedRingPushPop);

// Rounds of a full window: every packet is inserted in the order of `order`, then all are taken.
void ReorderRounds(benchmark::State& state, const std::vector<uint32_t>& order) {
  const auto window_packets = static_cast<uint32_t>(order.size());
  const std::unique_ptr<Arena> arena = Arena::Create(window_packets, 4 * kKiB).value();
  ReorderWindow window(window_packets);
  uint32_t first = 0;
  for ([[maybe_unused]] auto _ : state) {
    for (const uint32_t place : order) {
      Packet packet;
      packet.buffer = arena->TryAcquire();
      packet.header.index = first + place;
      if (!window.Insert(std::move(packet)).ok()) state.SkipWithError("a packet was refused");
    }
    for (uint32_t taken = 0; taken < window_packets; ++taken) {
      const std::optional<Packet> packet = window.WaitNext();
      benchmark::DoNotOptimize(packet->header.index);
      window.MarkLoaded();
    }
    first += window_packets;
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(window_packets));
}

void ReorderWindowInOrder(benchmark::State& state) {
  std::vector<uint32_t> order(static_cast<size_t>(state.range(0)));
  std::iota(order.begin(), order.end(), 0U);
  ReorderRounds(state, order);
}
BENCHMARK(ReorderWindowInOrder)->Arg(64);

void ReorderWindowShuffled(benchmark::State& state) {
  std::vector<uint32_t> order(static_cast<size_t>(state.range(0)));
  std::iota(order.begin(), order.end(), 0U);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(kSeed));
  ReorderRounds(state, order);
}
BENCHMARK(ReorderWindowShuffled)->Arg(64);

}  // namespace
}  // namespace godwit
