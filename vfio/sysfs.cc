#include "vfio/sysfs.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <filesystem>
#include <system_error>

namespace godwit {
namespace {

namespace fs = std::filesystem;

// The last part of what a symbolic link points to; empty if there is no such link.
std::string LinkName(const fs::path& link) {
  std::error_code error;
  return fs::read_symlink(link, error).filename().string();
}

// The name in `vfio-dev/`, of which there is one a device; empty if there is none.
std::string CdevPath(const fs::path& directory) {
  std::error_code error;
  const fs::directory_iterator entry(directory / "vfio-dev", error);
  if (error || entry == fs::directory_iterator()) return {};
  return absl::StrCat("/dev/vfio/devices/", entry->path().filename().string());
}

bool HasVfioDriver(const fs::path& directory, const std::string& driver) {
  std::error_code error;
  if (driver.empty()) return false;
  if (fs::exists(directory / "vfio-dev", error)) return true;
  // Kernels before 6.1 have no such directory. Mediated devices exist for VFIO alone; PCI drivers
  // have it in their names.
  return LinkName(directory / "subsystem") == "mdev" || absl::StrContains(driver, "vfio");
}

// dddd:bb:dd.f, in hexadecimal.
bool IsPciAddress(absl::string_view text) {
  constexpr absl::string_view kShape = "xxxx:xx:xx.x";
  if (text.size() != kShape.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = absl::ascii_isxdigit(static_cast<unsigned char>(text[i]));
    if (kShape[i] == 'x' ? !digit : text[i] != kShape[i]) return false;
  }
  return true;
}

absl::Status NoVfioDriver(const SysfsDevice& device) {
  const std::string bound =
      device.driver.empty() ? "no driver" : absl::StrCat("driver ", device.driver);
  return absl::FailedPreconditionError(absl::StrCat(
      device.name, " is bound to ", bound,
      ", which is none of VFIO's: unbind it and bind the device's vfio-pci variant, as with "
      "driverctl set-override ",
      device.name, " mlx5_vfio_pci"));
}

}  // namespace

SysfsDevice ReadSysfsDevice(const std::string& path) {
  SysfsDevice device;
  const fs::path directory = fs::path(path).lexically_normal();
  device.name = directory.filename().string();
  device.path = path;
  device.driver = LinkName(directory / "driver");
  device.iommu_group = LinkName(directory / "iommu_group");
  device.cdev = CdevPath(directory);
  device.has_vfio_driver = HasVfioDriver(directory, device.driver);
  return device;
}

absl::StatusOr<SysfsDevice> FindVfioDevice(absl::string_view text, const std::string& sysfs_root) {
  std::string path(text);
  const bool pci = IsPciAddress(text);
  if (pci) {
    path = absl::StrCat(sysfs_root, "/bus/pci/devices/", absl::AsciiStrToLower(text));
  } else if (!absl::StartsWith(text, "/")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is neither a PCI address such as 0000:01:00.1 nor a path such as ",
        "/sys/bus/mdev/devices/UUID"));
  }
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(
        path, " does not exist: `godwit devices` lists the devices that VFIO has on this host"));
  }
  const SysfsDevice device = ReadSysfsDevice(path);
  if (!device.has_vfio_driver) return NoVfioDriver(device);
  if (device.iommu_group.empty() && device.cdev.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(device.name,
                     " is in no IOMMU group: switch the IOMMU on in the firmware and on the "
                     "kernel's command line (intel_iommu=on or amd_iommu=on)"));
  }
  return device;
}

}  // namespace godwit
