#include "vfio/features.h"

#include <absl/strings/str_cat.h>

#include <cerrno>

#include "base/errno_status.h"
#include "vfio/feature_ioctl.h"
#include "vfio/uapi.h"

namespace godwit {
namespace {

constexpr uint32_t kGet = VFIO_DEVICE_FEATURE_GET;
constexpr uint32_t kSet = VFIO_DEVICE_FEATURE_SET;

bool IsAbsent(int result) { return result == -ENOTTY; }

bool Has(VfioKernel& kernel, int device, uint32_t flags) {
  return ProbeFeature(kernel, device, flags) == 0;
}

}  // namespace

absl::StatusOr<MigrationFlags> ProbeMigration(VfioKernel& kernel, int device) {
  uapi::MigrationPayload payload = {};
  int result = ProbeFeature(kernel, device, uapi::kFeatureMigration | kGet);
  if (result == 0) {
    result = ProbeFeature(kernel, device, uapi::kFeatureMigDeviceState | kGet | kSet);
  }
  if (result == 0) result = Feature(kernel, device, uapi::kFeatureMigration | kGet, payload);
  if (IsAbsent(result) || (result == 0 && (payload.flags & uapi::kMigrationStopCopy) == 0)) {
    return absl::UnimplementedError(
        "the device can't migrate: its driver has no VFIO migration; bind the device's own VFIO "
        "driver (as mlx5_vfio_pci) instead of vfio-pci, and check that its firmware allows it");
  }
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_FEATURE_MIGRATION");
  return MigrationFlags{.p2p = (payload.flags & uapi::kMigrationP2p) != 0,
                        .pre_copy = (payload.flags & uapi::kMigrationPreCopy) != 0};
}

VfioFeatures ProbeFeatures(VfioKernel& kernel, int device) {
  return {.data_size = Has(kernel, device, uapi::kFeatureMigDataSize | kGet),
          .dma_logging = Has(kernel, device, uapi::kFeatureDmaLoggingStart | kSet) &&
                         Has(kernel, device, uapi::kFeatureDmaLoggingStop | kSet) &&
                         Has(kernel, device, uapi::kFeatureDmaLoggingReport | kGet),
          .precopy_info_v2 = Has(kernel, device, uapi::kFeatureMigPrecopyInfoV2 | kSet)};
}

absl::Status OptIntoPrecopyInfoV2(VfioKernel& kernel, int device) {
  const int result = SetFeature(kernel, device, uapi::kFeatureMigPrecopyInfoV2);
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2");
  return absl::OkStatus();
}

absl::StatusOr<DeviceState> GetDeviceState(VfioKernel& kernel, int device) {
  uapi::MigStatePayload payload = {};
  const int result = Feature(kernel, device, uapi::kFeatureMigDeviceState | kGet, payload);
  if (result < 0) return ErrnoStatus(-result, "read the migration state");
  if (payload.device_state >= kDeviceStateCount) {
    return absl::UnimplementedError(absl::StrCat("the kernel says migration state ",
                                                 payload.device_state, ", godwit knows 0 to ",
                                                 kDeviceStateCount - 1));
  }
  return static_cast<DeviceState>(payload.device_state);
}

absl::StatusOr<UniqueFd> SetDeviceState(VfioKernel& kernel, int device, DeviceState wanted) {
  uapi::MigStatePayload payload = {static_cast<uint32_t>(wanted), -1};
  const int result = Feature(kernel, device, uapi::kFeatureMigDeviceState | kSet, payload);
  if (result == -EINVAL) {
    return absl::FailedPreconditionError("the driver refused it, or the stream that it got");
  }
  if (result == -EMFILE || result == -ENFILE) {
    return ErrnoStatus(-result, "no fd for the stream: raise its limit (ulimit -n)");
  }
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE");
  return UniqueFd(payload.data_fd);
}

absl::StatusOr<uint64_t> GetStopCopyBytes(VfioKernel& kernel, int device) {
  uapi::MigDataSizePayload payload = {};
  const int result = Feature(kernel, device, uapi::kFeatureMigDataSize | kGet, payload);
  if (IsAbsent(result)) return absl::UnimplementedError("the driver gives no size of its state");
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE");
  return payload.stop_copy_length;
}

absl::StatusOr<PrecopyInfo> ReadPrecopyInfo(VfioKernel& kernel, int data_fd, bool has_flags) {
  uapi::PrecopyInfoArgument info = {};
  info.argsz = sizeof(info);
  const int result = kernel.Ioctl(data_fd, uapi::kMigGetPrecopyInfo, &info);
  if (IsAbsent(result)) return absl::UnimplementedError("the driver gives no pre-copy information");
  if (result == -EINVAL) {
    return absl::FailedPreconditionError("no pre-copy information outside PRE_COPY");
  }
  if (result < 0) return ErrnoStatus(-result, "VFIO_MIG_GET_PRECOPY_INFO");
  return PrecopyInfo{info.initial_bytes, info.dirty_bytes,
                     has_flags && (info.flags & uapi::kPrecopyInfoReinit) != 0};
}

}  // namespace godwit
