#include "vfio/features.h"

#include <absl/strings/str_cat.h>

#include <cerrno>

#include "base/errno_status.h"
#include "vfio/uapi.h"

namespace godwit {
namespace {

// Header and payload as one struct, as VFIO_DEVICE_FEATURE takes them. 0 or a negative errno.
template <typename Payload>
int Feature(VfioKernel& kernel, int device, uint32_t flags, Payload& payload) {
  struct {
    uapi::FeatureHeader header;
    Payload payload;
  } argument = {{sizeof(argument), flags}, payload};
  static_assert(sizeof(argument) == sizeof(uapi::FeatureHeader) + sizeof(Payload));
  const int result = kernel.Ioctl(device, VFIO_DEVICE_FEATURE, &argument);
  payload = argument.payload;
  return result < 0 ? result : 0;
}

int ProbeFeature(VfioKernel& kernel, int device, uint32_t flags) {
  uapi::FeatureHeader header = {sizeof(header), flags | VFIO_DEVICE_FEATURE_PROBE};
  const int result = kernel.Ioctl(device, VFIO_DEVICE_FEATURE, &header);
  return result < 0 ? result : 0;
}

bool IsAbsent(int result) { return result == -ENOTTY; }

}  // namespace

absl::StatusOr<MigrationFlags> ProbeMigration(VfioKernel& kernel, int device) {
  constexpr uint32_t kGet = uapi::kFeatureMigration | VFIO_DEVICE_FEATURE_GET;
  uapi::MigrationPayload payload = {};
  int result = ProbeFeature(kernel, device, kGet);
  if (result == 0) result = Feature(kernel, device, kGet, payload);
  if (IsAbsent(result) || (result == 0 && (payload.flags & uapi::kMigrationStopCopy) == 0)) {
    return absl::UnimplementedError(
        "the device can't migrate: its driver has no VFIO migration; bind the device's own VFIO "
        "driver (as mlx5_vfio_pci) instead of vfio-pci, and check that its firmware allows it");
  }
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_FEATURE_MIGRATION");
  return MigrationFlags{.p2p = (payload.flags & uapi::kMigrationP2p) != 0,
                        .pre_copy = (payload.flags & uapi::kMigrationPreCopy) != 0};
}

absl::StatusOr<DeviceState> GetDeviceState(VfioKernel& kernel, int device) {
  uapi::MigStatePayload payload = {};
  const int result =
      Feature(kernel, device, uapi::kFeatureMigDeviceState | VFIO_DEVICE_FEATURE_GET, payload);
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
  const int result =
      Feature(kernel, device, uapi::kFeatureMigDeviceState | VFIO_DEVICE_FEATURE_SET, payload);
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
  const int result =
      Feature(kernel, device, uapi::kFeatureMigDataSize | VFIO_DEVICE_FEATURE_GET, payload);
  if (IsAbsent(result)) return absl::UnimplementedError("the driver gives no size of its state");
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE");
  return payload.stop_copy_length;
}

absl::StatusOr<PrecopyInfo> ReadPrecopyInfo(VfioKernel& kernel, int data_fd) {
  uapi::PrecopyInfoArgument info = {};
  info.argsz = sizeof(info);
  const int result = kernel.Ioctl(data_fd, uapi::kMigGetPrecopyInfo, &info);
  if (IsAbsent(result)) return absl::UnimplementedError("the driver gives no pre-copy information");
  if (result == -EINVAL) {
    return absl::FailedPreconditionError("no pre-copy information outside PRE_COPY");
  }
  if (result < 0) return ErrnoStatus(-result, "VFIO_MIG_GET_PRECOPY_INFO");
  // info.flags means something only with MIG_PRECOPY_INFOv2, which is not asked for.
  return PrecopyInfo{info.initial_bytes, info.dirty_bytes, false};
}

}  // namespace godwit
