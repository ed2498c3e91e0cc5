#include "vfio/kernel_device.h"
#include "vfio/state_table.h"

#include <absl/strings/str_cat.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/features.h"
#include "vfio/interrupts.h"
#include "vfio/pci_config.h"
#include "vfio/pci_function.h"
#include "vfio/uapi.h"

namespace godwit {

namespace {

// Whether `device` is VFIO's at all; every VFIO device answers this.
absl::Status CheckVfioFd(VfioKernel& kernel, int device) {
  vfio_device_info info = {};
  info.argsz = sizeof(info);
  const int result = kernel.Ioctl(device, VFIO_DEVICE_GET_INFO, &info);
  if (result >= 0) return absl::OkStatus();
  if (result == -EBADF) {
    return absl::InvalidArgumentError(absl::StrCat("fd ", device, " is not open"));
  }
  if (result == -EINVAL) {
    return absl::InvalidArgumentError(
        absl::StrCat("fd ", device,
                     " is no device that VFIO has given out: is it a VFIO cdev that is not bound "
                     "to an iommufd?"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "fd ", device,
      " is not a VFIO device's: ", ErrnoStatus(-result, "VFIO_DEVICE_GET_INFO").message()));
}

absl::Status ConfigTooLong(size_t bytes) {
  return absl::OutOfRangeError(absl::StrCat("the embedder's config has ", bytes, " bytes, at most ",
                                            kConfigBytesMax, " fit"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<VfioDevice>> VfioDevice::Open(absl::string_view device) {
  return KernelDevice::Open(device, VfioKernel::Real(), kSysfsRoot);
}

absl::StatusOr<std::unique_ptr<VfioDevice>> VfioDevice::Adopt(UniqueFd device, std::string name) {
  return KernelDevice::Adopt(std::move(device), std::move(name), VfioKernel::Real());
}

absl::StatusOr<std::unique_ptr<VfioDevice>> VfioDevice::AdoptBorrowed(int device,
                                                                      std::string name) {
  return KernelDevice::AdoptBorrowed(device, std::move(name), VfioKernel::Real());
}

absl::StatusOr<std::unique_ptr<KernelDevice>> KernelDevice::Open(absl::string_view spec,
                                                                 VfioKernel& kernel,
                                                                 const std::string& sysfs_root) {
  GODWIT_ASSIGN_OR_RETURN(const VfioSpec parsed, ParseVfioSpec(spec));
  GODWIT_ASSIGN_OR_RETURN(const SysfsDevice found, FindVfioDevice(parsed.device, sysfs_root));
  absl::StatusOr<VfioHandles> handles = OpenVia(kernel, found, parsed.via);
  if (!handles.ok()) return Annotate(handles.status(), found.name);
  const int device = handles->device.get();
  GODWIT_ASSIGN_OR_RETURN(std::unique_ptr<KernelDevice> opened,
                          Make(kernel, found.name, *std::move(handles), device, Interrupts::kOurs));
  GODWIT_RETURN_IF_ERROR(opened->ResetUnlessRunning());
  return opened;
}

absl::StatusOr<std::unique_ptr<KernelDevice>> KernelDevice::Adopt(UniqueFd device, std::string name,
                                                                  VfioKernel& kernel) {
  const int fd = device.get();
  GODWIT_RETURN_IF_ERROR(Annotate(CheckVfioFd(kernel, fd), name));
  VfioHandles handles;
  handles.device = std::move(device);
  return Make(kernel, std::move(name), std::move(handles), fd, Interrupts::kVmms);
}

absl::StatusOr<std::unique_ptr<KernelDevice>> KernelDevice::AdoptBorrowed(int device,
                                                                          std::string name,
                                                                          VfioKernel& kernel) {
  GODWIT_RETURN_IF_ERROR(Annotate(CheckVfioFd(kernel, device), name));
  return Make(kernel, std::move(name), VfioHandles(), device, Interrupts::kVmms);
}

absl::StatusOr<std::unique_ptr<KernelDevice>> KernelDevice::Make(VfioKernel& kernel,
                                                                 std::string name,
                                                                 VfioHandles handles, int device,
                                                                 Interrupts whose) {
  const absl::StatusOr<MigrationFlags> flags = ProbeMigration(kernel, device);
  if (!flags.ok()) return Annotate(flags.status(), name);
  const VfioFeatures features = ProbeFeatures(kernel, device);
  if (features.precopy_info_v2) {
    GODWIT_RETURN_IF_ERROR(Annotate(OptIntoPrecopyInfoV2(kernel, device), name));
  }
  return std::unique_ptr<KernelDevice>(new KernelDevice(kernel, std::move(name), std::move(handles),
                                                        device, *flags, features, whose));
}

KernelDevice::KernelDevice(VfioKernel& kernel, std::string name, VfioHandles handles, int device,
                           MigrationFlags flags, VfioFeatures features, Interrupts whose)
    : kernel_(kernel),
      name_(std::move(name)),
      handles_(std::move(handles)),
      device_(device),
      flags_(flags),
      features_(features),
      whose_interrupts_(whose),
      dma_log_(kernel, device, features.dma_logging) {}

absl::Status KernelDevice::ResetUnlessRunning() {
  GODWIT_ASSIGN_OR_RETURN(const DeviceState state, State());
  if (state == DeviceState::kRunning) return absl::OkStatus();
  return Reset();
}

absl::StatusOr<DeviceState> KernelDevice::State() {
  const absl::StatusOr<DeviceState> state = GetDeviceState(kernel_, device_);
  if (!state.ok()) return Annotate(state.status(), name_);
  return *state;
}

absl::StatusOr<UniqueFd> KernelDevice::SetState(DeviceState wanted) {
  // Never ask the kernel for STOP_COPY → PRE_COPY: vfio_mig_get_next_state() of Linux 6.12 finds
  // ERROR in its table there, takes it for a state that the device lacks, and looks for another
  // for ever, with the driver's lock held.
  if (wanted == DeviceState::kPreCopy || wanted == DeviceState::kPreCopyP2p) {
    GODWIT_ASSIGN_OR_RETURN(const DeviceState now, State());
    const absl::Status way = NextStep(flags(), now, wanted).status();
    if (!way.ok() && now != DeviceState::kError) return Annotate(way, name_);
  }
  absl::StatusOr<UniqueFd> data_fd = SetDeviceState(kernel_, device_, wanted);
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
  // Before it, as the kernel puts its interrupt settings back after a reset; and whether or not
  // that works, since nothing but the reset gets the device out of ERROR.
  const absl::Status disarmed = Annotate(DisarmInterrupts(), name_);
  const int result = kernel_.Ioctl(device_, VFIO_DEVICE_RESET, uintptr_t{0});
  if (result < 0) return ErrnoStatus(-result, absl::StrCat(name_, ": VFIO_DEVICE_RESET"));
  GODWIT_ASSIGN_OR_RETURN(const DeviceState state, State());
  if (state == DeviceState::kRunning) return disarmed;
  return absl::InternalError(
      absl::StrCat(name_, ": the device is in ", DeviceStateName(state), " after its reset"));
}

absl::StatusOr<uint64_t> KernelDevice::StopCopyBytes() {
  const absl::StatusOr<uint64_t> bytes = GetStopCopyBytes(kernel_, device_);
  if (!bytes.ok()) return Annotate(bytes.status(), name_);
  return *bytes;
}

absl::StatusOr<PrecopyInfo> KernelDevice::GetPrecopyInfo(int data_fd) {
  const absl::StatusOr<PrecopyInfo> info =
      ReadPrecopyInfo(kernel_, data_fd, features_.precopy_info_v2);
  if (!info.ok()) return Annotate(info.status(), name_);
  return *info;
}

absl::StatusOr<std::string> KernelDevice::SaveConfig() {
  absl::StatusOr<std::string> config = hooks_.save ? hooks_.save() : SavePciConfig();
  if (!config.ok()) return Annotate(config.status(), absl::StrCat(name_, ": save the config"));
  if (config->size() <= kConfigBytesMax) return config;
  return Annotate(ConfigTooLong(config->size()), name_);
}

absl::Status KernelDevice::LoadConfig(absl::string_view config) {
  return Annotate(hooks_.load ? hooks_.load(config) : LoadPciConfig(config),
                  absl::StrCat(name_, ": load the config"));
}

absl::StatusOr<std::string> KernelDevice::SavePciConfig() {
  GODWIT_ASSIGN_OR_RETURN(const auto function, PciFunction::Find(kernel_, device_));
  if (!function.has_value()) return std::string();
  GODWIT_ASSIGN_OR_RETURN(const PciConfig config, function->Read());
  return EncodePciConfig(config);
}

absl::Status KernelDevice::LoadPciConfig(absl::string_view config) {
  GODWIT_ASSIGN_OR_RETURN(const auto function, PciFunction::Find(kernel_, device_));
  if (function.has_value() == config.empty()) {
    return absl::FailedPreconditionError(
        config.empty() ? std::string("the source sent none, this device is a PCI function")
                       : absl::StrCat("the source sent ", config.size(),
                                      " bytes, this device is no PCI function"));
  }
  if (config.empty()) return absl::OkStatus();
  GODWIT_ASSIGN_OR_RETURN(const PciConfig loaded, DecodePciConfig(config));
  GODWIT_RETURN_IF_ERROR(function->RestoreRegisters(loaded));
  PciInterrupts wanted = FindPciInterrupts(loaded.space);
  wanted.msix_table = loaded.msix_table;
  GODWIT_RETURN_IF_ERROR(DisarmInterrupts());
  if (whose_interrupts_ == Interrupts::kOurs) {
    UniqueFd pending(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!pending.valid()) return ErrnoStatus(errno, "an eventfd for its interrupts");
    GODWIT_RETURN_IF_ERROR(EnableInterrupts(kernel_, device_, wanted, pending.get()));
    pending_ = std::move(pending);
    wanted.pending_fd = pending_.get();
  }
  interrupts_ = std::move(wanted);
  return function->RestoreCommand(loaded);
}

absl::Status KernelDevice::DisarmInterrupts() {
  if (pending_.valid()) {
    GODWIT_RETURN_IF_ERROR(DisableInterrupts(kernel_, device_, interrupts_.mode));
    pending_.Reset();
  }
  interrupts_ = PciInterrupts();
  return absl::OkStatus();
}

}  // namespace godwit
