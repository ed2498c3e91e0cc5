// A device's configuration as the peer sent it: the marks around it, the PCI config in it, the
// config space in that. What decodes is encoded to the same bytes, and what is found in a space
// lies in it.
//
// Input: a byte of flags, then the bytes.
#include <absl/types/span.h>

#include <cstring>
#include <memory>
#include <string>

#include "base/arena.h"
#include "base/check.h"
#include "engine/packet.h"
#include "tests/engine/wire_image.h"
#include "tests/fuzz/fuzz_input.h"
#include "vfio/pci_config.h"
#include "vfio/pci_space.h"

namespace godwit::fuzz {
namespace {

constexpr uint8_t kMarked = 1U << 0;  // the marks are put around the bytes
constexpr uint8_t kSealed = 1U << 1;  // the PCI config's CRC is made right
constexpr uint8_t kSpace = 1U << 2;   // the bytes are a config space and, behind it, MSI-X tables
constexpr size_t kCrcAt = 28;

// As docs/config-payload.md has it: bytes 0 to 27, then all behind the header.
std::string Seal(std::string config) {
  if (config.size() < kPciConfigHeaderBytes) return config;
  const uint32_t crc = wire::Crc32c(absl::string_view(config).substr(kPciConfigHeaderBytes),
                                    wire::Crc32c(config.substr(0, kCrcAt)));
  return config.replace(kCrcAt, 4, wire::BigEndian(crc, 4));
}

void CheckSpace(const std::string& space) {
  for (const PciField& field : RestoredFields(space)) {
    GODWIT_CHECK(field.bytes == 1 || field.bytes == 2 || field.bytes == 4);
    GODWIT_CHECK(field.offset <= space.size() && field.bytes <= space.size() - field.offset);
    PciRead(space, field.offset, field.bytes);
  }
  const PciLayout layout = FindPciLayout(space);
  GODWIT_CHECK(layout.msix_vectors <= kMsixVectorsMax);
  GODWIT_CHECK((layout.msix == 0) == (layout.msix_vectors == 0));
  if (layout.msix != 0) GODWIT_CHECK(FindMsixTable(space).bar <= 7);
  GODWIT_CHECK(FindPciInterrupts(space).vectors <= kMsixVectorsMax);
  GODWIT_CHECK(CheckSameDevice(space, space).ok());
  GODWIT_CHECK(!PciLayoutName(layout).empty() && !PciIdentityName(FindPciIdentity(space)).empty());
}

// From a space to a config and back.
void CheckRoundTrip(absl::string_view bytes) {
  if (bytes.size() < kPciSpaceBytesMin) return;
  PciConfig config;
  config.space = std::string(bytes.substr(0, kPciSpaceBytesMax));
  CheckSpace(config.space);
  const size_t table_bytes = FindPciLayout(config.space).msix_vectors * kMsixEntryBytes;
  for (const bool with_table : {false, true}) {
    config.msix_table.clear();
    if (with_table) config.msix_table.assign(table_bytes, 't');
    const auto again = DecodePciConfig(EncodePciConfig(config));
    GODWIT_CHECK(again.ok() && again->space == config.space &&
                 again->msix_table == config.msix_table);
  }
}

void CheckMarks(const std::string& payload, absl::string_view config) {
  static const std::unique_ptr<Arena> arena = Arena::Create(1, kConfigPayloadBytesMax).value();
  Buffer buffer = arena->TryAcquire();
  EncodeConfigPayload(config, buffer);
  GODWIT_CHECK(buffer.payload_bytes() == payload.size() &&
               std::memcmp(buffer.payload(), payload.data(), payload.size()) == 0);
}

void Run(FuzzInput input) {
  const uint8_t flags = input.Byte();
  std::string bytes(input.Rest());
  if ((flags & kSpace) != 0) return CheckRoundTrip(bytes);
  if ((flags & kSealed) != 0) bytes = Seal(std::move(bytes));
  const std::string payload = (flags & kMarked) != 0 ? wire::ConfigPayload(bytes) : bytes;
  const auto config =
      DecodeConfigPayload({reinterpret_cast<const std::byte*>(payload.data()), payload.size()});
  if (config.ok()) {
    GODWIT_CHECK(wire::ConfigPayload(*config) == payload);
    CheckMarks(payload, *config);
  }
  const absl::string_view content = config.ok() ? *config : absl::string_view(bytes);
  const auto pci = DecodePciConfig(content);
  if (!pci.ok()) return;
  CheckSpace(pci->space);
  GODWIT_CHECK(EncodePciConfig(*pci) == content);
}

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
