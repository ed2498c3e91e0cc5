// VFIO_DEVICE_FEATURE in its three forms. Each returns 0 or a negative errno.
#ifndef GODWIT_VFIO_FEATURE_IOCTL_H_
#define GODWIT_VFIO_FEATURE_IOCTL_H_

#include <cstdint>

#include "vfio/uapi.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Header and payload as one struct, as the ioctl takes them. `flags`: index and GET or SET.
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

// A SET of a feature that has no payload.
inline int SetFeature(VfioKernel& kernel, int device, uint32_t index) {
  uapi::FeatureHeader header = {sizeof(header), index | VFIO_DEVICE_FEATURE_SET};
  const int result = kernel.Ioctl(device, VFIO_DEVICE_FEATURE, &header);
  return result < 0 ? result : 0;
}

// Whether the feature can do what `flags` names (GET, SET or both). Does nothing to the device.
inline int ProbeFeature(VfioKernel& kernel, int device, uint32_t flags) {
  uapi::FeatureHeader header = {sizeof(header), flags | VFIO_DEVICE_FEATURE_PROBE};
  const int result = kernel.Ioctl(device, VFIO_DEVICE_FEATURE, &header);
  return result < 0 ? result : 0;
}

}  // namespace godwit

#endif  // GODWIT_VFIO_FEATURE_IOCTL_H_
