// Which side of a session a device is opened for.
#ifndef GODWIT_VFIO_DEVICE_ROLE_H_
#define GODWIT_VFIO_DEVICE_ROLE_H_

namespace godwit {

enum class DeviceRole {
  kSource,  // its state is saved
  kTarget,  // its state is loaded
};

}  // namespace godwit

#endif  // GODWIT_VFIO_DEVICE_ROLE_H_
