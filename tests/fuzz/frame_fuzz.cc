// Frames as a lane delivers them, up to the reorder window: whatever the bytes, what gets in has
// passed every check of docs/wire-format.md, and comes out as it went in.
//
// Input: steps. A byte says what (its two low bits: 3 takes the next packet out, else a frame
// comes) and which CRCs are made right (sealed_frame.h); a frame follows as TakeFrame() reads it.
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/check.h"
#include "engine/packet.h"
#include "engine/reorder_window.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/sealed_frame.h"

namespace godwit::fuzz {
namespace {

constexpr size_t kDevices = 2;
constexpr uint32_t kWindowPackets = 8;
constexpr size_t kPacketBytes = 200;
constexpr size_t kBuffers = kDevices * kWindowPackets + 1;  // and the one that comes in
constexpr uint8_t kTakeOut = 3;

Arena& TheArena() {
  static const std::unique_ptr<Arena> arena = Arena::Create(kBuffers, 256).value();
  return *arena;
}

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// The document's checks, made a second time from the bytes and with the tests' own CRC.
void CheckIsRight(const std::string& message, const std::optional<uint64_t>& lane_sequence) {
  const wire::Frame frame = wire::Decode(message);
  const wire::Frame right;
  GODWIT_CHECK(frame.magic == right.magic && frame.version == right.version);
  GODWIT_CHECK(frame.type == right.type && frame.packet_version == right.packet_version);
  GODWIT_CHECK((frame.flags & ~uint32_t{1}) == 0 && frame.reserved == right.reserved);
  GODWIT_CHECK(frame.payload_bytes == frame.payload.size() && frame.index != kPacketIndexInvalid);
  wire::Frame sealed = frame;
  sealed.header_crc.reset();
  GODWIT_CHECK(wire::Encode(sealed) == message);
  if (!lane_sequence.has_value()) return;

  GODWIT_CHECK(frame.lane_sequence == *lane_sequence && frame.device < kDevices);
  GODWIT_CHECK(frame.stream_offset + frame.payload.size() <=
               static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (frame.flags == 0) {
    GODWIT_CHECK(!frame.payload.empty() && frame.payload.size() <= kPacketBytes);
    GODWIT_CHECK(frame.config_crc == 0 &&
                 wire::Crc32c(frame.payload, frame.crc_before) == frame.crc_after);
  } else {
    GODWIT_CHECK(frame.payload.size() >= 16 && frame.crc_before == frame.crc_after);
    GODWIT_CHECK(wire::Crc32c(frame.payload) == frame.config_crc);
  }
}

// One device's window and what should be in it.
class Device {
 public:
  void Insert(const PacketHeader& header, const std::string& message) {
    Packet packet;
    packet.header = header;
    packet.buffer = TheArena().TryAcquire();
    GODWIT_CHECK(static_cast<bool>(packet.buffer));
    const size_t bytes = message.size() - wire::kHeaderBytes;
    std::memcpy(packet.buffer.payload(), message.data() + wire::kHeaderBytes, bytes);
    packet.buffer.set_payload_bytes(bytes);

    const bool taken = window_.Insert(std::move(packet)).ok();
    // A refused packet stays with us, so that it can't be lost.
    GODWIT_CHECK(taken != static_cast<bool>(packet.buffer));  // NOLINT(bugprone-use-after-move)
    GODWIT_CHECK(taken == Fits(header));
    if (taken) {
      if (header.is_config()) config_index_ = header.index;
      held_[header.index] = message;
    }
    CheckCounts();
  }

  void TakeOut() {
    const auto due = held_.find(loaded_packets_);
    if (due == held_.end()) return;
    const std::optional<Packet> packet = window_.WaitNext();
    GODWIT_CHECK(packet.has_value());
    std::string message(wire::kHeaderBytes, '\0');
    EncodePacketHeader(packet->header, reinterpret_cast<std::byte*>(message.data()));
    message.append(reinterpret_cast<const char*>(packet->buffer.payload()),
                   packet->buffer.payload_bytes());
    GODWIT_CHECK(message == due->second);
    held_.erase(due);
    ++loaded_packets_;
    GODWIT_CHECK(window_.MarkLoaded() == (held_.count(loaded_packets_) == 1));
    CheckCounts();
  }

 private:
  bool Fits(const PacketHeader& header) const {
    const uint32_t index = header.index;
    if (index < loaded_packets_ || index - loaded_packets_ >= kWindowPackets) return false;
    if (held_.count(index) != 0) return false;
    if (config_index_.has_value()) return index < *config_index_ && !header.is_config();
    return !header.is_config() || held_.empty() || held_.rbegin()->first < index;
  }
  void CheckCounts() const {
    GODWIT_CHECK(window_.loaded_packets() == loaded_packets_);
    bool complete = config_index_.has_value();
    for (uint32_t i = loaded_packets_; complete && i <= *config_index_; ++i) {
      complete = held_.count(i) == 1;
    }
    GODWIT_CHECK(window_.complete() == complete);
    GODWIT_CHECK(held_.size() <= kWindowPackets);
    GODWIT_CHECK(window_.depth_high_water() >= held_.size());
  }

  ReorderWindow window_{kWindowPackets};
  std::map<uint32_t, std::string> held_;
  uint32_t loaded_packets_ = 0;
  std::optional<uint32_t> config_index_;
};

void Run(FuzzInput input) {
  {
    std::vector<std::unique_ptr<Device>> devices;
    for (size_t i = 0; i < kDevices; ++i) devices.push_back(std::make_unique<Device>());
    uint64_t lane_sequence = 0;
    while (!input.empty()) {
      const uint8_t step = input.Byte();
      if ((step & 3) == kTakeOut) {
        devices[(step >> 2) % kDevices]->TakeOut();
        continue;
      }
      const std::string message =
          wire::Encode(Seal(TakeFrame(input), step, /*lane_sequence=*/lane_sequence));
      const auto payload = AsBytes(message).subspan(wire::kHeaderBytes);
      const auto header = DecodePacketHeader(AsBytes(message).data(), payload.size());
      if (!header.ok()) continue;
      CheckIsRight(message, std::nullopt);
      std::string again(wire::kHeaderBytes, '\0');
      EncodePacketHeader(*header, reinterpret_cast<std::byte*>(again.data()));
      GODWIT_CHECK(again == message.substr(0, wire::kHeaderBytes));
      const auto twice =
          DecodePacketHeader(reinterpret_cast<const std::byte*>(again.data()), payload.size());
      GODWIT_CHECK(twice.ok() && *twice == *header);

      // In a session without CRCs there are none.
      GODWIT_CHECK(
          !CheckPacket(*header, payload, {kPacketBytes, kDevices, /*crc=*/false}, lane_sequence)
               .ok() ||
          (header->crc_before | header->crc_after | header->config_crc) == 0);
      if (!CheckPacket(*header, payload, {kPacketBytes, kDevices}, lane_sequence).ok()) continue;
      CheckIsRight(message, lane_sequence);
      ++lane_sequence;
      devices[header->device]->Insert(*header, message);
    }
  }
  GODWIT_CHECK(TheArena().free_count() == kBuffers);
}

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
