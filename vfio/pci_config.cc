#include "vfio/pci_config.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/types/span.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

constexpr uint32_t kMagic = 0x47504349;  // "GPCI"
constexpr size_t kCrcOffset = 28;
constexpr uint8_t kFlagMsixTable = 1U << 0;

void Append(std::string& to, uint32_t value, size_t bytes) {
  for (size_t i = bytes; i-- > 0;) to.push_back(static_cast<char>(value >> (8 * i)));
}

// REQUIRES: it is inside.
uint32_t Get(absl::string_view bytes, size_t offset, size_t count) {
  uint32_t value = 0;
  for (const char byte : bytes.substr(offset, count))
    value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

uint32_t Crc(uint32_t crc, absl::string_view bytes) {
  return Crc32cExtend(
      crc, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
}

uint32_t PayloadCrc(absl::string_view header, absl::string_view body) {
  return Crc(Crc(kCrc32cOfNothing, header.substr(0, kCrcOffset)), body);
}

// The header but for its CRC. What it says about the space is taken from there.
std::string Header(absl::string_view space, uint8_t flags) {
  const PciIdentity identity = FindPciIdentity(space);
  std::string header;
  Append(header, kMagic, 4);
  Append(header, kPciConfigVersion, 2);
  Append(header, identity.vendor, 2);
  Append(header, identity.device, 2);
  Append(header, identity.subsystem_vendor, 2);
  Append(header, identity.subsystem, 2);
  Append(header, 0, 1);
  Append(header, identity.class_code, 3);
  Append(header, static_cast<uint32_t>(space.size()), 2);
  Append(header, static_cast<uint32_t>(FindPciInterrupts(space).mode), 1);
  Append(header, flags, 1);
  Append(header, static_cast<uint32_t>(identity.msix_vectors), 2);
  Append(header, 0, 4);
  return header;
}

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the PCI config is damaged: ", what));
}

// Lengths against the bytes there, and flags; the space and table are copied after that only.
absl::Status CheckHeader(absl::string_view bytes) {
  if (bytes.size() < kPciConfigHeaderBytes) {
    return Damaged(absl::StrCat(bytes.size(), " bytes, its header has ", kPciConfigHeaderBytes));
  }
  if (Get(bytes, 0, 4) != kMagic) {
    return Damaged(
        absl::StrFormat("it begins with %#08x, not %#08x; did the source's embedder "
                        "save one of its own?",
                        Get(bytes, 0, 4), kMagic));
  }
  if (Get(bytes, 4, 2) != kPciConfigVersion) {
    return absl::UnimplementedError(absl::StrCat("the PCI config has version ", Get(bytes, 4, 2),
                                                 ", this godwit knows ", kPciConfigVersion,
                                                 ": is the source's newer?"));
  }
  const uint32_t crc = PayloadCrc(bytes, bytes.substr(kPciConfigHeaderBytes));
  if (crc != Get(bytes, kCrcOffset, 4)) {
    return Damaged(absl::StrFormat("its CRC is %#08x, not %#08x", crc, Get(bytes, kCrcOffset, 4)));
  }
  const uint32_t flags = Get(bytes, 21, 1);
  if ((flags & ~uint32_t{kFlagMsixTable}) != 0 || Get(bytes, 14, 1) != 0 ||
      Get(bytes, 24, 4) != 0) {
    return absl::UnimplementedError(absl::StrFormat(
        "the PCI config has unknown flags (%#x) or reserved bytes: is the source's godwit newer?",
        flags));
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodePciConfig(const PciConfig& config) {
  GODWIT_CHECK(config.space.size() >= kPciSpaceBytesMin &&
               config.space.size() <= kPciSpaceBytesMax);
  GODWIT_CHECK(config.msix_table.empty() ||
               config.msix_table.size() ==
                   FindPciLayout(config.space).msix_vectors * kMsixEntryBytes);
  std::string bytes = Header(config.space, config.msix_table.empty() ? 0 : kFlagMsixTable);
  const std::string body = config.space + config.msix_table;
  Append(bytes, PayloadCrc(bytes, body), 4);
  return bytes + body;
}

absl::StatusOr<PciConfig> DecodePciConfig(absl::string_view bytes) {
  GODWIT_RETURN_IF_ERROR(CheckHeader(bytes));
  const size_t space_bytes = Get(bytes, 18, 2);
  const size_t vectors = Get(bytes, 22, 2);
  const auto flags = static_cast<uint8_t>(Get(bytes, 21, 1));
  if (space_bytes < kPciSpaceBytesMin || space_bytes > kPciSpaceBytesMax ||
      vectors > kMsixVectorsMax) {
    return Damaged(absl::StrCat(space_bytes, " bytes of config space, ", vectors, " vectors"));
  }
  const bool has_table = (flags & kFlagMsixTable) != 0;
  const size_t wanted =
      kPciConfigHeaderBytes + space_bytes + (has_table ? vectors * kMsixEntryBytes : 0);
  if (bytes.size() != wanted || (has_table && vectors == 0)) {
    return Damaged(absl::StrCat(bytes.size(), " bytes, its header says ", wanted));
  }
  PciConfig config = {.space = std::string(bytes.substr(kPciConfigHeaderBytes, space_bytes)),
                      .msix_table = std::string(bytes.substr(kPciConfigHeaderBytes + space_bytes))};
  if (Header(config.space, flags) != bytes.substr(0, kCrcOffset)) {
    return Damaged("its header and its config space disagree");
  }
  return config;
}

absl::Status CheckSameDevice(absl::string_view source, absl::string_view target) {
  const PciIdentity theirs = FindPciIdentity(source);
  const PciIdentity ours = FindPciIdentity(target);
  PciIdentity but_for_subsystem = theirs;  // the same function is sold under several
  but_for_subsystem.subsystem_vendor = ours.subsystem_vendor;
  but_for_subsystem.subsystem = ours.subsystem;
  if (but_for_subsystem != ours) {
    return absl::FailedPreconditionError(absl::StrCat("the source's device is another: it is ",
                                                      PciIdentityName(theirs), ", this one is ",
                                                      PciIdentityName(ours)));
  }
  const PciLayout their_layout = FindPciLayout(source);
  const PciLayout our_layout = FindPciLayout(target);
  if (their_layout == our_layout) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the source's ", PciIdentityName(theirs),
                   " has its capabilities elsewhere: ", PciLayoutName(their_layout),
                   "; this device: ", PciLayoutName(our_layout), "; is the firmware the same?"));
}

}  // namespace godwit
