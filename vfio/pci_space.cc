#include "vfio/pci_space.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <bitset>

#include "base/check.h"

namespace godwit {
namespace {

constexpr uint32_t kMsiKind = PCI_MSI_FLAGS_QMASK | PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT;
constexpr size_t kMsixBytes = 12;
constexpr size_t kExpressBytes = 20;          // of the first version
constexpr size_t kExpressControl2Bytes = 44;  // up to the end of device control 2's dword

// What belongs to the guest; the rest is the host's topology, or starts a reset.
constexpr uint32_t kDeviceControlMask =
    PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE | PCI_EXP_DEVCTL_URRE |
    PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN | PCI_EXP_DEVCTL_READRQ;
constexpr uint32_t kDeviceControl2Mask = PCI_EXP_DEVCTL2_COMP_TIMEOUT |
                                         PCI_EXP_DEVCTL2_COMP_TMOUT_DIS |
                                         PCI_EXP_DEVCTL2_IDO_REQ_EN | PCI_EXP_DEVCTL2_IDO_CMP_EN;
static_assert(kDeviceControlMask == 0x781f && kDeviceControl2Mask == 0x031f);
static_assert(kPciCommandField.offset == PCI_COMMAND &&
              kPciCommandField.mask ==
                  (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                   PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE));

bool Fits(absl::string_view space, size_t offset, size_t bytes) {
  return offset <= space.size() && bytes <= space.size() - offset;
}

size_t MsiBytes(uint32_t control) {
  const size_t plain = (control & PCI_MSI_FLAGS_64BIT) != 0 ? 14 : 10;
  // Mask and pending bits, a dword each, behind the data's.
  return (control & PCI_MSI_FLAGS_MASKBIT) != 0 ? (plain + 2) + 8 : plain;
}

// Takes a capability into the layout, if it is the first of its kind and fits into the space.
void Take(absl::string_view space, size_t at, PciLayout& layout) {
  if (!Fits(space, at, 4)) return;
  const uint32_t control = PciRead(space, at + 2, 2);
  switch (PciRead(space, at, 1)) {
    case PCI_CAP_ID_EXP:
      if (layout.express != 0 || !Fits(space, at, kExpressBytes)) return;
      layout.express = at;
      layout.express_has_control2 =
          (control & PCI_EXP_FLAGS_VERS) >= 2 && Fits(space, at, kExpressControl2Bytes);
      return;
    case PCI_CAP_ID_MSI:
      if (layout.msi != 0 || !Fits(space, at, MsiBytes(control))) return;
      layout.msi = at;
      layout.msi_kind = control & kMsiKind;
      return;
    case PCI_CAP_ID_MSIX:
      if (layout.msix != 0 || !Fits(space, at, kMsixBytes)) return;
      layout.msix = at;
      layout.msix_vectors = (control & PCI_MSIX_FLAGS_QSIZE) + 1;
      return;
    default:
      return;
  }
}

void AddMsiFields(const PciLayout& layout, std::vector<PciField>& fields) {
  const bool wide = (layout.msi_kind & PCI_MSI_FLAGS_64BIT) != 0;
  fields.push_back({layout.msi + PCI_MSI_ADDRESS_LO, 4, 0xffffffff});
  if (wide) fields.push_back({layout.msi + PCI_MSI_ADDRESS_HI, 4, 0xffffffff});
  fields.push_back({layout.msi + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 2, 0xffff});
  if ((layout.msi_kind & PCI_MSI_FLAGS_MASKBIT) == 0) return;
  fields.push_back({layout.msi + (wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32), 4, 0xffffffff});
}

}  // namespace

uint32_t PciRead(absl::string_view space, size_t offset, size_t bytes) {
  GODWIT_CHECK(bytes <= 4 && Fits(space, offset, bytes));
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= uint32_t{static_cast<uint8_t>(space[offset + i])} << (8 * i);
  }
  return value;
}

PciLayout FindPciLayout(absl::string_view space) {
  PciLayout layout;
  if ((PciRead(space, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST) == 0) return layout;
  std::bitset<256> seen;
  size_t at = PciRead(space, PCI_CAPABILITY_LIST, 1) & ~size_t{3};
  // A list that loops or leaves the space ends there.
  for (size_t i = 0; i < kPciCapabilitiesMax; ++i) {
    if (at < PCI_STD_HEADER_SIZEOF || !Fits(space, at, 2) || seen.test(at)) break;
    seen.set(at);
    Take(space, at, layout);
    at = PciRead(space, at + PCI_CAP_LIST_NEXT, 1) & ~size_t{3};
  }
  return layout;
}

std::string PciLayoutName(const PciLayout& layout) {
  std::string name =
      layout.express == 0
          ? "no PCI Express"
          : absl::StrFormat("PCI Express %#x%s", layout.express,
                            layout.express_has_control2 ? " (with device control 2)" : "");
  absl::StrAppend(&name, layout.msi == 0 ? ", no MSI"
                                         : absl::StrFormat(", MSI %#x (kind %#x)", layout.msi,
                                                           layout.msi_kind));
  absl::StrAppend(&name,
                  layout.msix == 0 ? ", no MSI-X" : absl::StrFormat(", MSI-X %#x", layout.msix));
  return name;
}

PciIdentity FindPciIdentity(absl::string_view space) {
  return {.vendor = PciRead(space, PCI_VENDOR_ID, 2),
          .device = PciRead(space, PCI_DEVICE_ID, 2),
          .subsystem_vendor = PciRead(space, PCI_SUBSYSTEM_VENDOR_ID, 2),
          .subsystem = PciRead(space, PCI_SUBSYSTEM_ID, 2),
          .class_code = PciRead(space, PCI_CLASS_REVISION, 4) >> 8,
          .space_bytes = space.size(),
          .msix_vectors = FindPciLayout(space).msix_vectors};
}

std::string PciIdentityName(const PciIdentity& identity) {
  return absl::StrFormat(
      "%04x:%04x (subsystem %04x:%04x, class %06x, %u bytes of config space, %u MSI-X vectors)",
      identity.vendor, identity.device, identity.subsystem_vendor, identity.subsystem,
      identity.class_code, identity.space_bytes, identity.msix_vectors);
}

PciInterrupts FindPciInterrupts(absl::string_view space) {
  const PciLayout layout = FindPciLayout(space);
  PciInterrupts found;
  const uint32_t msi = layout.msi == 0 ? 0 : PciRead(space, layout.msi + PCI_MSI_FLAGS, 2);
  if (layout.msix != 0 &&
      (PciRead(space, layout.msix + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_ENABLE) != 0) {
    found.mode = PciInterruptMode::kMsix;
    found.vectors = static_cast<uint16_t>(layout.msix_vectors);
  } else if ((msi & PCI_MSI_FLAGS_ENABLE) != 0) {
    found.mode = PciInterruptMode::kMsi;
    // A power of two from 1 to 32; 6 and 7 are reserved.
    found.vectors = static_cast<uint16_t>(1U << std::min((msi & PCI_MSI_FLAGS_QSIZE) >> 4, 5U));
  } else if (PciRead(space, PCI_INTERRUPT_PIN, 1) != 0 &&
             (PciRead(space, PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE) == 0) {
    found.mode = PciInterruptMode::kIntx;
    found.vectors = 1;
  }
  return found;
}

MsixTablePlace FindMsixTable(absl::string_view space) {
  const size_t msix = FindPciLayout(space).msix;
  GODWIT_CHECK(msix != 0);
  const uint32_t place = PciRead(space, msix + PCI_MSIX_TABLE, 4);
  return {.bar = place & PCI_MSIX_TABLE_BIR, .offset = place & PCI_MSIX_TABLE_OFFSET};
}

std::vector<PciField> RestoredFields(absl::string_view space) {
  const PciLayout layout = FindPciLayout(space);
  std::vector<PciField> fields = {
      {PCI_CACHE_LINE_SIZE, 1, 0xff}, {PCI_LATENCY_TIMER, 1, 0xff}, {PCI_INTERRUPT_LINE, 1, 0xff}};
  if (layout.express != 0) {
    fields.push_back({layout.express + PCI_EXP_DEVCTL, 2, kDeviceControlMask});
    if (layout.express_has_control2) {
      fields.push_back({layout.express + PCI_EXP_DEVCTL2, 2, kDeviceControl2Mask});
    }
  }
  if (layout.msi != 0) AddMsiFields(layout, fields);
  return fields;
}

absl::string_view PciInterruptModeName(PciInterruptMode mode) {
  switch (mode) {
    case PciInterruptMode::kNone:
      return "none";
    case PciInterruptMode::kIntx:
      return "INTx";
    case PciInterruptMode::kMsi:
      return "MSI";
    case PciInterruptMode::kMsix:
      return "MSI-X";
  }
  return "?";
}

}  // namespace godwit
