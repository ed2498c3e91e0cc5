// A device that the kernel's VFIO gives us.
#ifndef GODWIT_VFIO_KERNEL_DEVICE_H_
#define GODWIT_VFIO_KERNEL_DEVICE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <string>

#include "godwit/device.h"
#include "vfio/group.h"
#include "vfio/sysfs.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Ownership: holds container, group and device open: nobody else can use the device meanwhile.
// Threads:   as Device.
// Blocking:  SetState(), State() and Reset() wait for the hardware, and behind a driver that holds
//            its state lock for a read or write of the data_fd.
// Errors:    as Device; a failed SetState() says in which state the device really is.
class KernelDevice final : public Device {
 public:
  // `device`: "/sys/bus/mdev/devices/UUID" or "0000:01:00.1". The device is RUNNING afterwards:
  // one found in another state (mtty keeps its state over close) is reset. Unimplemented if it
  // can't migrate, Unavailable if it is in use; see FindVfioDevice() and OpenThroughGroup().
  static absl::StatusOr<std::unique_ptr<KernelDevice>> Open(absl::string_view device);
  static absl::StatusOr<std::unique_ptr<KernelDevice>> Open(absl::string_view device,
                                                            VfioKernel& kernel,
                                                            const std::string& sysfs_root);

  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "vfio"; }
  MigrationFlags flags() const override { return flags_; }
  absl::StatusOr<DeviceState> State() override;
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override;
  absl::Status Reset() override;
  absl::StatusOr<uint64_t> StopCopyBytes() override;
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int data_fd) override;
  absl::StatusOr<std::string> SaveConfig() override { return std::string(); }
  absl::Status LoadConfig(absl::string_view config) override;

 private:
  KernelDevice(VfioKernel& kernel, std::string name, VfioHandles handles, MigrationFlags flags);
  absl::Status ResetUnlessRunning();

  VfioKernel& kernel_;
  const std::string name_;
  const VfioHandles handles_;
  const MigrationFlags flags_;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_KERNEL_DEVICE_H_
