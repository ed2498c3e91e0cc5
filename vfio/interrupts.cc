#include "vfio/interrupts.h"

#include <absl/strings/str_cat.h>

#include <cstring>
#include <vector>

#include "base/errno_status.h"
#include "vfio/uapi.h"

namespace godwit {
namespace {

uint32_t IrqIndex(PciInterruptMode mode) {
  switch (mode) {
    case PciInterruptMode::kMsi:
      return VFIO_PCI_MSI_IRQ_INDEX;
    case PciInterruptMode::kMsix:
      return VFIO_PCI_MSIX_IRQ_INDEX;
    case PciInterruptMode::kNone:
    case PciInterruptMode::kIntx:
      break;
  }
  return VFIO_PCI_INTX_IRQ_INDEX;
}

// The ioctl's struct with `count` fds behind it.
int SetIrqs(VfioKernel& kernel, int device, vfio_irq_set header, int eventfd) {
  static_assert(sizeof(header) % sizeof(int32_t) == 0);
  constexpr size_t kHeaderWords = sizeof(header) / sizeof(int32_t);
  std::vector<int32_t> words(kHeaderWords + header.count, eventfd);
  header.argsz = static_cast<uint32_t>(words.size() * sizeof(int32_t));
  std::memcpy(words.data(), &header, sizeof(header));
  const int result = kernel.Ioctl(device, VFIO_DEVICE_SET_IRQS, words.data());
  return result < 0 ? result : 0;
}

}  // namespace

absl::Status EnableInterrupts(VfioKernel& kernel, int device, const PciInterrupts& wanted,
                              int eventfd) {
  if (wanted.mode == PciInterruptMode::kNone) return absl::OkStatus();
  const absl::string_view name = PciInterruptModeName(wanted.mode);
  vfio_irq_info info = {};
  info.argsz = sizeof(info);
  info.index = IrqIndex(wanted.mode);
  int result = kernel.Ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info);
  if (result < 0) {
    return ErrnoStatus(-result, absl::StrCat("VFIO_DEVICE_GET_IRQ_INFO of ", name));
  }
  if (info.count < wanted.vectors || (info.flags & VFIO_IRQ_INFO_EVENTFD) == 0) {
    return absl::FailedPreconditionError(absl::StrCat("the source used ", wanted.vectors, " ", name,
                                                      " interrupts, this device gives ",
                                                      info.count));
  }
  vfio_irq_set header = {};
  header.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
  header.index = info.index;
  header.count = wanted.vectors;
  result = SetIrqs(kernel, device, header, eventfd);
  if (result == 0) return absl::OkStatus();
  return ErrnoStatus(-result, absl::StrCat("VFIO_DEVICE_SET_IRQS: enable ", wanted.vectors, " ",
                                           name, " interrupts"));
}

absl::Status DisableInterrupts(VfioKernel& kernel, int device, PciInterruptMode mode) {
  if (mode == PciInterruptMode::kNone) return absl::OkStatus();
  vfio_irq_set header = {};
  header.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
  header.index = IrqIndex(mode);
  const int result = SetIrqs(kernel, device, header, -1);
  if (result == 0) return absl::OkStatus();
  return ErrnoStatus(-result,
                     absl::StrCat("VFIO_DEVICE_SET_IRQS: disable ", PciInterruptModeName(mode)));
}

}  // namespace godwit
