#include "vfio/kernel_device.h"

#include <absl/strings/str_cat.h>

#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/features.h"
#include "vfio/uapi.h"

namespace godwit {

absl::StatusOr<std::unique_ptr<KernelDevice>> KernelDevice::Open(absl::string_view device) {
  return Open(device, VfioKernel::Real(), kSysfsRoot);
}

absl::StatusOr<std::unique_ptr<KernelDevice>> KernelDevice::Open(absl::string_view device,
                                                                 VfioKernel& kernel,
                                                                 const std::string& sysfs_root) {
  GODWIT_ASSIGN_OR_RETURN(const SysfsDevice found, FindVfioDevice(device, sysfs_root));
  absl::StatusOr<VfioHandles> handles = OpenThroughGroup(kernel, found);
  if (!handles.ok()) return Annotate(handles.status(), found.name);
  const absl::StatusOr<MigrationFlags> flags = ProbeMigration(kernel, handles->device.get());
  if (!flags.ok()) return Annotate(flags.status(), found.name);
  std::unique_ptr<KernelDevice> opened(
      new KernelDevice(kernel, found.name, *std::move(handles), *flags));
  GODWIT_RETURN_IF_ERROR(opened->ResetUnlessRunning());
  return opened;
}

KernelDevice::KernelDevice(VfioKernel& kernel, std::string name, VfioHandles handles,
                           MigrationFlags flags)
    : kernel_(kernel), name_(std::move(name)), handles_(std::move(handles)), flags_(flags) {}

absl::Status KernelDevice::ResetUnlessRunning() {
  GODWIT_ASSIGN_OR_RETURN(const DeviceState state, State());
  if (state == DeviceState::kRunning) return absl::OkStatus();
  return Reset();
}

absl::StatusOr<DeviceState> KernelDevice::State() {
  const absl::StatusOr<DeviceState> state = GetDeviceState(kernel_, handles_.device.get());
  if (!state.ok()) return Annotate(state.status(), name_);
  return *state;
}

absl::StatusOr<UniqueFd> KernelDevice::SetState(DeviceState wanted) {
  absl::StatusOr<UniqueFd> data_fd = SetDeviceState(kernel_, handles_.device.get(), wanted);
  if (data_fd.ok()) return data_fd;
  // The walk may have ended anywhere on its way; only the kernel knows.
  const absl::StatusOr<DeviceState> state = State();
  const std::string now =
      state.ok() ? absl::StrCat("is now in ", DeviceStateName(*state)) : "does not say its state";
  return absl::Status(data_fd.status().code(),
                      absl::StrCat(name_, ": change to ", DeviceStateName(wanted),
                                   " failed: ", data_fd.status().message(), "; the device ", now));
}

absl::Status KernelDevice::Reset() {
  const int result = kernel_.Ioctl(handles_.device.get(), VFIO_DEVICE_RESET, uintptr_t{0});
  if (result < 0) return ErrnoStatus(-result, absl::StrCat(name_, ": VFIO_DEVICE_RESET"));
  GODWIT_ASSIGN_OR_RETURN(const DeviceState state, State());
  if (state == DeviceState::kRunning) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(name_, ": the device is in ", DeviceStateName(state), " after its reset"));
}

absl::StatusOr<uint64_t> KernelDevice::StopCopyBytes() {
  const absl::StatusOr<uint64_t> bytes = GetStopCopyBytes(kernel_, handles_.device.get());
  if (!bytes.ok()) return Annotate(bytes.status(), name_);
  return *bytes;
}

absl::StatusOr<PrecopyInfo> KernelDevice::GetPrecopyInfo(int data_fd) {
  const absl::StatusOr<PrecopyInfo> info = ReadPrecopyInfo(kernel_, data_fd);
  if (!info.ok()) return Annotate(info.status(), name_);
  return *info;
}

absl::Status KernelDevice::LoadConfig(absl::string_view config) {
  if (config.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(name_, ": this version loads no PCI config, but the source sent one of ",
                   config.size(), " bytes: is the source's godwit newer?"));
}

}  // namespace godwit
