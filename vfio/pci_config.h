// The config payload of a PCI device as bytes: docs/config-payload.md.
#ifndef GODWIT_VFIO_PCI_CONFIG_H_
#define GODWIT_VFIO_PCI_CONFIG_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "godwit/device.h"
#include "vfio/pci_space.h"

namespace godwit {

inline constexpr uint16_t kPciConfigVersion = 1;
inline constexpr size_t kPciConfigHeaderBytes = 32;
static_assert(kPciConfigHeaderBytes + kPciSpaceBytesMax + kMsixVectorsMax * kMsixEntryBytes <=
              kConfigBytesMax);

struct PciConfig {
  std::string space;       // kPciSpaceBytesMin to kPciSpaceBytesMax
  std::string msix_table;  // an entry a vector of the space's MSI-X capability, or empty
};

// REQUIRES: the sizes above.
std::string EncodePciConfig(const PciConfig& config);

// `bytes` are a peer's. Sizes and the interrupts of what is returned are as REQUIRED above.
// DataLoss: truncated, too long or damaged; Unimplemented: a version or flag that this godwit does
// not know.
absl::StatusOr<PciConfig> DecodePciConfig(absl::string_view bytes);

// FailedPrecondition, naming both devices, unless what `source` holds can be put into the device
// whose space is `target`.
absl::Status CheckSameDevice(absl::string_view source, absl::string_view target);

}  // namespace godwit

#endif  // GODWIT_VFIO_PCI_CONFIG_H_
