#include "tests/vfio/fake_pci.h"

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace godwit {
namespace {

constexpr uint64_t kConfigOffset = uint64_t{VFIO_PCI_CONFIG_REGION_INDEX} << 40;
constexpr uint64_t kBar = 2;
constexpr uint64_t kTableOffset = (kBar << 40) + 0x1000;

}  // namespace

FakePci::FakePci(size_t space_bytes) : space(space_bytes, '\0') {
  Put(PCI_VENDOR_ID, 0x15b3, 2);
  Put(PCI_DEVICE_ID, 0x101e, 2);
  Put(PCI_SUBSYSTEM_VENDOR_ID, 0x15b3, 2);
  Put(PCI_SUBSYSTEM_ID, 0x58, 2);
  Put(PCI_CLASS_REVISION, 0x02000001, 4);
  Put(PCI_STATUS, PCI_STATUS_CAP_LIST, 2);
  Put(PCI_INTERRUPT_PIN, 1, 1);
  Put(PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
  if (space_bytes < 256) return;
  Put(PCI_CAPABILITY_LIST, kExpress, 1);
  Put(kExpress, PCI_CAP_ID_EXP | kMsi << 8, 2);
  Put(kExpress + PCI_EXP_FLAGS, 2, 2);
  Put(kMsi, PCI_CAP_ID_MSI | kMsix << 8, 2);
  Put(kMsi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | 2 << 1, 2);
  Put(kMsix, PCI_CAP_ID_MSIX, 2);
  Put(kMsix + PCI_MSIX_FLAGS, kVectors - 1, 2);
  Put(kMsix + PCI_MSIX_TABLE, 0x1000 | kBar, 4);
}

void FakePci::Put(size_t offset, uint32_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) space.at(offset + i) = static_cast<char>(value >> (8 * i));
}

uint32_t FakePci::Get(size_t offset, size_t bytes) const {
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= uint32_t{static_cast<uint8_t>(space.at(offset + i))} << (8 * i);
  }
  return value;
}

int FakePci::Ioctl(unsigned long request, void* argument) {
  if (request == VFIO_DEVICE_GET_REGION_INFO) {
    auto* const info = static_cast<vfio_region_info*>(argument);
    if (info->argsz < sizeof(*info) || info->index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
    info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    info->offset = uint64_t{info->index} << 40;
    info->size = 0;
    if (info->index == VFIO_PCI_CONFIG_REGION_INDEX) info->size = space.size();
    if (info->index == kBar) info->size = bar_bytes;
    return 0;
  }
  if (request == VFIO_DEVICE_GET_IRQ_INFO) {
    auto* const info = static_cast<vfio_irq_info*>(argument);
    if (info->argsz < sizeof(*info) || info->index >= VFIO_PCI_NUM_IRQS) return -EINVAL;
    info->flags = VFIO_IRQ_INFO_EVENTFD;
    info->count = irq_count;
    return 0;
  }
  return request == VFIO_DEVICE_SET_IRQS ? SetIrqs(argument) : -ENOTTY;
}

void FakePci::Enable(uint32_t index, bool on) {
  const auto change = [&](size_t offset, uint32_t bit) {
    Put(offset, on ? Get(offset, 2) | bit : Get(offset, 2) & ~bit, 2);
  };
  if (index == VFIO_PCI_MSI_IRQ_INDEX) change(kMsi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
  if (index == VFIO_PCI_MSIX_IRQ_INDEX) change(kMsix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE);
}

int FakePci::SetIrqs(const void* argument) {
  vfio_irq_set set;
  std::memcpy(&set, argument, sizeof(set));
  if (irq_error != 0) return -irq_error;
  if ((set.flags & VFIO_IRQ_SET_ACTION_TRIGGER) == 0 || set.start != 0) return -EINVAL;
  if ((set.flags & VFIO_IRQ_SET_DATA_NONE) != 0) {
    if (set.count != 0 || irqs.erase(set.index) == 0) return -EINVAL;
    Enable(set.index, false);
    return 0;
  }
  if (set.argsz != sizeof(set) + set.count * sizeof(int32_t)) return -EINVAL;
  if (!irqs.empty() && !irqs.contains(set.index)) return -EINVAL;  // one mode at a time
  std::vector<int32_t> fds(set.count);
  std::memcpy(fds.data(), static_cast<const char*>(argument) + sizeof(set),
              set.count * sizeof(int32_t));
  irqs[set.index] = fds;
  Enable(set.index, true);
  return 0;
}

ssize_t FakePci::Read(void* to, size_t bytes, uint64_t offset) {
  bytes = std::min(bytes, transfer_bytes_max);
  if (offset >= kConfigOffset && offset - kConfigOffset < space.size()) {
    return static_cast<ssize_t>(space.copy(static_cast<char*>(to), bytes, offset - kConfigOffset));
  }
  if (offset < kTableOffset || offset - kTableOffset >= table.size()) return -EINVAL;
  if (read_error != 0) return -read_error;
  const size_t count = table.copy(static_cast<char*>(to), bytes, offset - kTableOffset);
  if (hides_table) std::memset(to, 0xff, count);
  return static_cast<ssize_t>(count);
}

ssize_t FakePci::Write(const void* from, size_t bytes, uint64_t offset) {
  const auto* const data = static_cast<const char*>(from);
  if (offset >= kConfigOffset && offset - kConfigOffset < space.size()) {
    const size_t at = offset - kConfigOffset;
    if (bytes > space.size() - at) return -EINVAL;
    config_writes.push_back(at);
    space.replace(at, bytes, data, bytes);
    return static_cast<ssize_t>(bytes);
  }
  if (offset < kTableOffset || offset - kTableOffset >= table.size()) return -EINVAL;
  bytes = std::min(bytes, transfer_bytes_max);
  if (!hides_table) table.replace(offset - kTableOffset, bytes, data, bytes);
  return static_cast<ssize_t>(bytes);
}

}  // namespace godwit
