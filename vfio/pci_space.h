// What is where in a PCI configuration space, and which of it may be restored.
//
// The bytes can be a peer's: every function takes any bytes of at least kPciSpaceBytesMin.
#ifndef GODWIT_VFIO_PCI_SPACE_H_
#define GODWIT_VFIO_PCI_SPACE_H_

#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "godwit/vfio_device.h"

namespace godwit {

inline constexpr size_t kPciSpaceBytesMin = 64;
inline constexpr size_t kPciSpaceBytesMax = 4096;
inline constexpr size_t kPciCapabilitiesMax = 48;  // all that fit between 0x40 and 0x100
inline constexpr size_t kMsixVectorsMax = 2048;
inline constexpr size_t kMsixEntryBytes = 16;

// Little-endian. REQUIRES: offset + bytes <= space.size(), bytes <= 4.
uint32_t PciRead(absl::string_view space, size_t offset, size_t bytes);

// Where the capabilities stand whose registers are restored; 0: the device has none such.
struct PciLayout {
  size_t express = 0;
  bool express_has_control2 = false;
  size_t msi = 0;
  uint32_t msi_kind = 0;  // of its control word: 64-bit, mask bits, vectors that it can have
  size_t msix = 0;
  size_t msix_vectors = 0;

  friend bool operator==(const PciLayout&, const PciLayout&) = default;
};
PciLayout FindPciLayout(absl::string_view space);

// "PCI Express 0x60, MSI 0x90 (kind 0x80), no MSI-X", …
std::string PciLayoutName(const PciLayout& layout);

struct PciIdentity {
  uint32_t vendor = 0;
  uint32_t device = 0;
  uint32_t subsystem_vendor = 0;
  uint32_t subsystem = 0;
  uint32_t class_code = 0;  // 24 bits
  size_t space_bytes = 0;
  size_t msix_vectors = 0;

  friend bool operator==(const PciIdentity&, const PciIdentity&) = default;
};
PciIdentity FindPciIdentity(absl::string_view space);

// "15b3:101e (subsystem 15b3:0058, class 020000, 4096 bytes of config space, 64 MSI-X vectors)"
std::string PciIdentityName(const PciIdentity& identity);

// What the enable bits say; `vectors` set, nothing else.
PciInterrupts FindPciInterrupts(absl::string_view space);

// Where the MSI-X table is. REQUIRES: FindPciLayout(space).msix != 0.
struct MsixTablePlace {
  uint32_t bar = 0;     // 0 to 7; 6 and 7 are no BAR
  uint64_t offset = 0;  // in the BAR
};
MsixTablePlace FindMsixTable(absl::string_view space);

// A register of which `mask` is restored.
struct PciField {
  size_t offset = 0;
  size_t bytes = 0;  // 1, 2 or 4
  uint32_t mask = 0;
};
// In the order in which they are restored; all inside the space.
std::vector<PciField> RestoredFields(absl::string_view space);
// Restored after all else.
inline constexpr PciField kPciCommandField = {.offset = 0x04, .bytes = 2, .mask = 0x0547};

}  // namespace godwit

#endif  // GODWIT_VFIO_PCI_SPACE_H_
