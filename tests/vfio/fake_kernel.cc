#include "tests/vfio/fake_kernel.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "vfio/state_table.h"
#include "vfio/uapi.h"

namespace godwit {

namespace fs = std::filesystem;

int FakeKernel::NewFd(Role role) {
  const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_GE(fd, 0);
  roles_[fd] = role;
  return fd;
}

int FakeKernel::open_fds() const {
  int open = 0;
  for (const auto& [fd, role] : roles_) open += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return open;
}

int FakeKernel::Open(const std::string& path) {
  const auto error = open_errors.find(path);
  if (error != open_errors.end()) return -error->second;
  if (path == "/dev/vfio/vfio") return NewFd(Role::kContainer);
  if (path == "/dev/vfio/" + group) return NewFd(Role::kGroup);
  return -ENOENT;
}

int FakeKernel::Ioctl(int fd, unsigned long request, void* argument) {
  const auto role = roles_.find(fd);
  if (role == roles_.end()) return -EBADF;
  switch (role->second) {
    case Role::kContainer:
      return ContainerIoctl(request, argument);
    case Role::kGroup:
      return GroupIoctl(request, argument);
    case Role::kDevice:
      return DeviceIoctl(request, argument);
    case Role::kData:
      break;
  }
  if (request != uapi::kMigGetPrecopyInfo) return -ENOTTY;
  if (precopy_error != 0) return -precopy_error;
  auto* const info = static_cast<uapi::PrecopyInfoArgument*>(argument);
  if (info->argsz != sizeof(*info)) return -EINVAL;
  *info = {sizeof(*info), 0xdeadbeef, 100, 200};  // old kernels leave garbage in flags
  return 0;
}

int FakeKernel::ContainerIoctl(unsigned long request, void* argument) {
  const auto value = reinterpret_cast<uintptr_t>(argument);
  switch (request) {
    case VFIO_GET_API_VERSION:
      return api_version;
    case VFIO_CHECK_EXTENSION:
      return has_type1v2 && value == VFIO_TYPE1v2_IOMMU ? 1 : 0;
    case VFIO_SET_IOMMU:
      if (set_iommu_error != 0) return -set_iommu_error;
      if (!container_set_ || value != VFIO_TYPE1v2_IOMMU) return -EINVAL;
      iommu_set_ = true;
      return 0;
    default:
      return -ENOTTY;
  }
}

int FakeKernel::GroupIoctl(unsigned long request, void* argument) {
  switch (request) {
    case VFIO_GROUP_GET_STATUS: {
      auto* const status = static_cast<vfio_group_status*>(argument);
      if (status->argsz < sizeof(*status)) return -EINVAL;
      status->flags = (group_viable ? uint32_t{VFIO_GROUP_FLAGS_VIABLE} : 0u) |
                      (group_busy ? uint32_t{VFIO_GROUP_FLAGS_CONTAINER_SET} : 0u);
      return 0;
    }
    case VFIO_GROUP_SET_CONTAINER: {
      const auto container = roles_.find(*static_cast<const int*>(argument));
      if (set_container_error != 0) return -set_container_error;
      if (container == roles_.end() || container->second != Role::kContainer) return -EINVAL;
      container_set_ = true;
      return 0;
    }
    case VFIO_GROUP_GET_DEVICE_FD:
      if (device_error != 0) return -device_error;
      if (!iommu_set_) return -EINVAL;
      device_name = static_cast<const char*>(argument);
      return NewFd(Role::kDevice);
    default:
      return -ENOTTY;
  }
}

int FakeKernel::DeviceIoctl(unsigned long request, void* argument) {
  if (request == VFIO_DEVICE_FEATURE) return Feature(argument);
  if (request != VFIO_DEVICE_RESET) return -ENOTTY;
  ++resets;
  if (reset_error != 0) return -reset_error;
  state = static_cast<uint32_t>(DeviceState::kRunning);
  return 0;
}

int FakeKernel::Feature(void* argument) {
  auto* const header = static_cast<uapi::FeatureHeader*>(argument);
  void* const payload = header + 1;
  const size_t payload_bytes = header->argsz - sizeof(*header);
  const bool probe = (header->flags & VFIO_DEVICE_FEATURE_PROBE) != 0;
  const bool set = (header->flags & VFIO_DEVICE_FEATURE_SET) != 0;
  switch (header->flags & VFIO_DEVICE_FEATURE_MASK) {
    case uapi::kFeatureMigration: {
      if (migration_error != 0) return -migration_error;
      if (probe) return 0;
      const uapi::MigrationPayload answer = {migration_flags};
      if (payload_bytes < sizeof(answer)) return -EINVAL;
      std::memcpy(payload, &answer, sizeof(answer));
      return 0;
    }
    case uapi::kFeatureMigDeviceState: {
      if (payload_bytes < sizeof(uapi::MigStatePayload)) return -EINVAL;
      if (set) return SetState(payload);
      const uapi::MigStatePayload answer = {state, -1};
      std::memcpy(payload, &answer, sizeof(answer));
      return 0;
    }
    case uapi::kFeatureMigDataSize: {
      if (data_size_error != 0) return -data_size_error;
      const uapi::MigDataSizePayload answer = {data_size};
      if (payload_bytes < sizeof(answer)) return -EINVAL;
      std::memcpy(payload, &answer, sizeof(answer));
      return 0;
    }
    default:
      return -ENOTTY;
  }
}

int FakeKernel::SetState(void* payload) {
  uapi::MigStatePayload wanted;
  std::memcpy(&wanted, payload, sizeof(wanted));
  wanted.data_fd = -1;
  std::memcpy(payload, &wanted, sizeof(wanted));  // the requested state stays on failure
  if (!set_results.empty()) {
    const SetResult result = set_results.front();
    set_results.pop_front();
    state = static_cast<uint32_t>(result.state_then);
    return -result.error;
  }
  const auto now = static_cast<DeviceState>(state);
  const auto next = static_cast<DeviceState>(wanted.device_state);
  if (!Walk({true, true}, now, next).ok()) return -EINVAL;
  state = wanted.device_state;
  const bool opens =
      now != next && (next == DeviceState::kResuming || (IsSaving(next) && !IsSaving(now)));
  if (opens) wanted.data_fd = NewFd(Role::kData);
  std::memcpy(payload, &wanted, sizeof(wanted));
  return 0;
}

FakeSysfs::FakeSysfs() {
  fs::create_directories(root() + "/bus/pci/devices");
  fs::create_directories(root() + "/bus/mdev/devices");
}

std::string FakeSysfs::AddPci(const std::string& name, const std::string& driver,
                              const std::string& group) {
  return Add("pci", name, driver, group);
}

std::string FakeSysfs::AddMdev(const std::string& uuid, const std::string& driver,
                               const std::string& group) {
  return Add("mdev", uuid, driver, group);
}

std::string FakeSysfs::Add(const std::string& bus, const std::string& name,
                           const std::string& driver, const std::string& group) {
  // The real directory is elsewhere; the bus has a link to it.
  const std::string real = root() + "/devices/" + name;
  fs::create_directories(real);
  fs::create_symlink("../../bus/" + bus, real + "/subsystem");
  if (!driver.empty())
    fs::create_symlink("../../bus/" + bus + "/drivers/" + driver, real + "/driver");
  if (!group.empty()) {
    fs::create_symlink("../../kernel/iommu_groups/" + group, real + "/iommu_group");
  }
  const std::string link = root() + "/bus/" + bus + "/devices/" + name;
  fs::create_directory_symlink(real, link);
  return link;
}

}  // namespace godwit
