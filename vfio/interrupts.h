// VFIO_DEVICE_SET_IRQS for a PCI function.
#ifndef GODWIT_VFIO_INTERRUPTS_H_
#define GODWIT_VFIO_INTERRUPTS_H_

#include <absl/status/status.h>

#include "godwit/vfio_device.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Enables `wanted.vectors` interrupts of `wanted.mode`; each counts up `eventfd`, of which the
// kernel keeps references of its own. kNone: nothing. FailedPrecondition if the device has not as
// many.
absl::Status EnableInterrupts(VfioKernel& kernel, int device, const PciInterrupts& wanted,
                              int eventfd);

// kNone: nothing.
absl::Status DisableInterrupts(VfioKernel& kernel, int device, PciInterruptMode mode);

}  // namespace godwit

#endif  // GODWIT_VFIO_INTERRUPTS_H_
