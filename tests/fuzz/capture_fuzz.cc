// A capture file: header, records, trailer, and the packets in them. Whatever is in the file,
// reading ends, and a capture that is right to its end is whole, and encodes to the bytes that
// stand there.
//
// Input: a byte of flags, then the file.
#include <absl/strings/str_cat.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/capture_format.h"
#include "engine/capture_inspect.h"
#include "engine/capture_reader.h"
#include "tests/engine/wire_image.h"
#include "tests/fuzz/fuzz_input.h"

namespace godwit::fuzz {
namespace {

constexpr uint8_t kSealHeader = 1U << 0;   // the header's CRC is made right
constexpr uint8_t kSealFrames = 1U << 1;   // and those of the frames, header and payload
constexpr uint8_t kAddTrailer = 1U << 2;   // the trailer for what stands there is put behind it
constexpr uint8_t kSealTrailer = 1U << 3;  // the CRC of the last 32 bytes is made right
// An inspection's buffer has one packet; larger ones only take longer.
constexpr size_t kPacketBytesMax = 64 * 1024;

void PutCrc(std::string& bytes, size_t begin, size_t crc_at) {
  const uint32_t crc = wire::Crc32c(absl::string_view(bytes).substr(begin, crc_at - begin));
  bytes.replace(crc_at, 4, wire::BigEndian(crc, 4));
}

// Goes from record to record as their lengths say; how many are whole.
size_t SealFrames(std::string& bytes, size_t header_bytes, bool seal) {
  size_t records = 0;
  for (size_t at = header_bytes; bytes.size() - at >= kCaptureLengthBytes; ++records) {
    const size_t length = wire::Number(absl::string_view(bytes).substr(at, kCaptureLengthBytes));
    at += kCaptureLengthBytes;
    if (length < wire::kHeaderBytes || bytes.size() - at < length) return records;
    if (seal) {
      wire::Frame frame = wire::Decode(absl::string_view(bytes).substr(at, length));
      const bool config = (frame.flags & 1) != 0;
      frame.crc_after = config ? frame.crc_before : wire::Crc32c(frame.payload, frame.crc_before);
      frame.config_crc = config ? wire::Crc32c(frame.payload) : 0;
      frame.header_crc.reset();
      bytes.replace(at, length, wire::Encode(frame));
    }
    at += length;
  }
  return records;
}

std::string MakeFile(FuzzInput& input) {
  const uint8_t flags = input.Byte();
  std::string bytes(input.Rest());
  if (bytes.size() < kCaptureFixedBytes) return bytes;
  const auto header_bytes =
      CaptureHeaderBytes(absl::string_view(bytes).substr(0, kCaptureFixedBytes));
  if (header_bytes.ok() && bytes.size() >= *header_bytes) {
    if ((flags & kSealHeader) != 0) PutCrc(bytes, 0, *header_bytes - kCaptureCrcBytes);
    const size_t records = SealFrames(bytes, *header_bytes, (flags & kSealFrames) != 0);
    if ((flags & kAddTrailer) != 0) bytes += EncodeCaptureTrailer({records, bytes.size()});
  }
  if ((flags & kSealTrailer) != 0 && bytes.size() >= kCaptureTrailerBytes) {
    PutCrc(bytes, bytes.size() - kCaptureTrailerBytes, bytes.size() - kCaptureCrcBytes);
  }
  return bytes;
}

class Counter final : public InspectSink {
 public:
  void OnPacket(const InspectedPacket& packet, absl::Span<const std::byte> payload) override {
    GODWIT_CHECK(packet.record == records && packet.payload_bytes == payload.size());
    GODWIT_CHECK(!packet.problem.empty() || (packet.header_ok && packet.payload_ok));
    ++records;
    if (!packet.problem.empty()) ++wrong;
  }
  uint64_t records = 0;
  uint64_t wrong = 0;
};

void Inspect(CaptureReader& reader, const std::string& file) {
  const CaptureHeader header = reader.header();
  GODWIT_CHECK(!header.devices.empty());
  const std::string again = EncodeCaptureHeader(header);
  GODWIT_CHECK(file.compare(0, again.size(), again) == 0);
  const bool whole = reader.CheckWhole().ok();
  if (header.packet_bytes > kPacketBytesMax) return;

  Counter counter;
  std::vector<InspectedDevice> devices;
  const absl::Status end = InspectCapture(reader, counter, devices);
  GODWIT_CHECK(devices.size() == header.devices.size());
  uint64_t right = 0;
  for (const InspectedDevice& device : devices) right += device.packets;
  GODWIT_CHECK(right == counter.records - counter.wrong);
  if (end.ok()) GODWIT_CHECK(whole && reader.records() == counter.records);
}

void Run(FuzzInput input) {
  const std::string file = MakeFile(input);
  const UniqueFd fd(::memfd_create("capture", MFD_CLOEXEC));
  GODWIT_CHECK(fd.valid());
  GODWIT_CHECK(::write(fd.get(), file.data(), file.size()) == static_cast<ssize_t>(file.size()));
  const auto reader = CaptureReader::Open(absl::StrCat("/proc/self/fd/", fd.get()));
  if (reader.ok()) Inspect(**reader, file);
}

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
