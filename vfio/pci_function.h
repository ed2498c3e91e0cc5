// The PCI face of an open VFIO device: its configuration space and its MSI-X table.
#ifndef GODWIT_VFIO_PCI_FUNCTION_H_
#define GODWIT_VFIO_PCI_FUNCTION_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <optional>
#include <string>

#include "godwit/unique_fd.h"
#include "godwit/vfio_device.h"
#include "vfio/pci_config.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Ownership: borrows the device's fd.
// Threads:   as Device.
// Blocking:  as the driver does for reads and writes of registers.
// Errors:    each names the register or ioctl.
class PciFunction {
 public:
  // None if the device has no PCI face.
  static absl::StatusOr<std::optional<PciFunction>> Find(VfioKernel& kernel, int device);

  absl::StatusOr<PciConfig> Read() const;

  // As docs/config-payload.md, "Loading", steps 2 to 4. FailedPrecondition, with nothing changed,
  // if `config` is another device's.
  absl::Status RestoreRegisters(const PciConfig& config) const;
  // Step 6, the last: step 5 is EnableInterrupts() of interrupts.h.
  absl::Status RestoreCommand(const PciConfig& config) const;

 private:
  struct Region {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    bool readable = false;
    bool writable = false;
  };

  PciFunction(VfioKernel& kernel, int device, Region config)
      : kernel_(&kernel), device_(device), config_(config) {}
  static absl::StatusOr<Region> FindRegion(VfioKernel& kernel, int device, uint32_t index);
  absl::StatusOr<std::string> ReadAll(const Region& region, uint64_t offset, size_t bytes) const;
  absl::Status WriteAll(const Region& region, uint64_t offset, absl::string_view bytes) const;
  absl::StatusOr<std::string> ReadSpace() const { return ReadAll(config_, 0, config_.bytes); }
  // The BAR's region, moved to begin at the table; not readable where the driver has none there.
  absl::StatusOr<Region> FindMsixRegion(absl::string_view space) const;
  // Empty where the driver hides it.
  absl::StatusOr<std::string> ReadMsixTable(absl::string_view space) const;
  absl::Status RestoreField(const PciField& field, absl::string_view from,
                            absl::string_view now) const;

  VfioKernel* kernel_;
  int device_;
  Region config_;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_PCI_FUNCTION_H_
