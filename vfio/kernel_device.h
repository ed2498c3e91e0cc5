// A device that the kernel's VFIO gives us.
#ifndef GODWIT_VFIO_KERNEL_DEVICE_H_
#define GODWIT_VFIO_KERNEL_DEVICE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <string>

#include "godwit/vfio_device.h"
#include "vfio/features.h"
#include "vfio/kernel_dma_log.h"
#include "vfio/open_via.h"
#include "vfio/sysfs.h"
#include "vfio/vfio_handles.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// As VfioDevice, over any VfioKernel.
class KernelDevice final : public VfioDevice {
 public:
  static absl::StatusOr<std::unique_ptr<KernelDevice>> Open(absl::string_view spec,
                                                            VfioKernel& kernel,
                                                            const std::string& sysfs_root);
  static absl::StatusOr<std::unique_ptr<KernelDevice>> Adopt(UniqueFd device, std::string name,
                                                             VfioKernel& kernel);
  static absl::StatusOr<std::unique_ptr<KernelDevice>> AdoptBorrowed(int device, std::string name,
                                                                     VfioKernel& kernel);

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "vfio"; }
  MigrationFlags flags() const override { return flags_; }
  const VfioFeatures& features() const { return features_; }
  absl::StatusOr<DeviceState> State() override;
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override;
  absl::Status Reset() override;
  absl::StatusOr<uint64_t> StopCopyBytes() override;
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override;
  absl::StatusOr<std::string> SaveConfig() override;
  absl::Status LoadConfig(absl::string_view config) override;

  void SetConfigHooks(ConfigHooks hooks) override { hooks_ = std::move(hooks); }
  const PciInterrupts& loaded_interrupts() const override { return interrupts_; }
  DmaLog& dma_log() override { return dma_log_; }

 private:
  enum class Interrupts { kOurs, kVmms };

  KernelDevice(VfioKernel& kernel, std::string name, VfioHandles handles, int device,
               MigrationFlags flags, VfioFeatures features, Interrupts whose);
  // Asks an open device what it can do. `device` is in `handles`, or borrowed.
  static absl::StatusOr<std::unique_ptr<KernelDevice>> Make(VfioKernel& kernel, std::string name,
                                                            VfioHandles handles, int device,
                                                            Interrupts whose);
  absl::Status ResetUnlessRunning();
  absl::StatusOr<std::string> SavePciConfig();
  absl::Status LoadPciConfig(absl::string_view config);
  // Those that a load has armed; a VMM's stay.
  absl::Status DisarmInterrupts();

  VfioKernel& kernel_;
  const std::string name_;
  const VfioHandles handles_;
  const int device_;
  const MigrationFlags flags_;
  const VfioFeatures features_;
  const Interrupts whose_interrupts_;

  ConfigHooks hooks_;
  UniqueFd pending_;  // what interrupts_.pending_fd is
  PciInterrupts interrupts_;
  KernelDmaLog dma_log_;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_KERNEL_DEVICE_H_
