#include "vfio/device_spec.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include "base/errno_status.h"
#include "godwit/vfio_device.h"
#include "vfio/file_device.h"
#include "vfio/soft_options.h"

namespace godwit {

absl::string_view DeviceSpecHelp() {
  return "  vfio:/sys/bus/mdev/devices/UUID   a mediated VFIO device\n"
         "  vfio:0000:01:00.1                 a PCI function bound to a VFIO driver; "
         "\",via=group\" or\n"
         "                                    \",via=cdev\" behind it forces the way to it\n"
         "  soft:size=1GiB,seed=7             a device in software; same size and seed both sides\n"
         "  soft:profile=mlx5,size=1MiB       the same, behaving like a driver; also hisi, pds, "
         "qat,\n"
         "                                    virtio, xe, mtty: docs/soft-device.md\n"
         "  file:PATH                         a file whose bytes are the state";
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(absl::string_view spec, DeviceRole role) {
  const size_t colon = spec.find(':');
  const absl::string_view kind = spec.substr(0, colon);
  const absl::string_view rest =
      colon == absl::string_view::npos ? absl::string_view() : spec.substr(colon + 1);
  if (kind == "file" && !rest.empty()) return FileDevice::Open(std::string(rest), role);
  if (kind == "vfio" && !rest.empty()) return VfioDevice::Open(rest);
  if (kind == "soft" && !rest.empty()) {
    const absl::StatusOr<SoftDeviceOptions> options = ParseSoftOptions(rest);
    if (options.ok()) return MakeSoftDevice(std::string(spec), *options);
    return Annotate(options.status(), absl::StrCat("device '", absl::CHexEscape(spec), "'"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", absl::CHexEscape(spec),
                   "' is no device: write vfio:/sys/bus/mdev/devices/UUID, vfio:0000:01:00.1, "
                   "soft:size=1GiB,seed=7 or file:PATH"));
}

}  // namespace godwit
