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
  if (path == "/dev/iommu" && has_iommufd) return NewFd(Role::kIommufd);
  if (path == "/dev/vfio/devices/vfio0" && has_cdev) return NewFd(Role::kCdev);
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
    case Role::kCdev:
      return request == uapi::kDeviceBindIommufd ? Bind(fd, argument) : -EINVAL;
    case Role::kIommufd:
      return -ENOTTY;
    case Role::kData:
      break;
  }
  if (request != uapi::kMigGetPrecopyInfo) return -ENOTTY;
  if (precopy_error != 0) return -precopy_error;
  auto* const info = static_cast<uapi::PrecopyInfoArgument*>(argument);
  if (info->argsz != sizeof(*info)) return -EINVAL;
  // Without the opt-in there is garbage in flags, with the bit set.
  const uint32_t flags = !precopy_info_v2_ ? 0xdeadbeef : precopy.reinit ? 1 : 0;
  *info = {sizeof(*info), flags, precopy.initial_bytes, precopy.dirty_bytes};
  return 0;
}

int FakeKernel::Bind(int fd, void* argument) {
  const auto* const bind = static_cast<const uapi::BindIommufdArgument*>(argument);
  if (bind->argsz != sizeof(*bind) || bind->flags != 0) return -EINVAL;
  const auto iommufd = roles_.find(bind->iommufd);
  if (iommufd == roles_.end() || iommufd->second != Role::kIommufd) return -EBADF;
  if (bind_error != 0) return -bind_error;
  roles_[fd] = Role::kDevice;
  return 0;
}

bool FakeKernel::IsDevice(int fd) const {
  const auto role = roles_.find(fd);
  return role != roles_.end() && role->second == Role::kDevice;
}

ssize_t FakeKernel::Pread(int fd, void* to, size_t bytes, uint64_t offset) {
  return IsDevice(fd) && pci != nullptr ? pci->Read(to, bytes, offset) : -EINVAL;
}

ssize_t FakeKernel::Pwrite(int fd, const void* from, size_t bytes, uint64_t offset) {
  return IsDevice(fd) && pci != nullptr ? pci->Write(from, bytes, offset) : -EINVAL;
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
  if (request == VFIO_DEVICE_GET_INFO) {
    auto* const info = static_cast<vfio_device_info*>(argument);
    info->flags = VFIO_DEVICE_FLAGS_RESET | (pci != nullptr ? uint32_t{VFIO_DEVICE_FLAGS_PCI} : 0u);
    info->num_regions = pci != nullptr ? uint32_t{VFIO_PCI_NUM_REGIONS} : 0u;
    info->num_irqs = pci != nullptr ? uint32_t{VFIO_PCI_NUM_IRQS} : 0u;
    return 0;
  }
  if (request != VFIO_DEVICE_RESET) return pci != nullptr ? pci->Ioctl(request, argument) : -ENOTTY;
  ++resets;
  if (pci != nullptr) armed_at_reset = pci->irqs.size();
  if (reset_error != 0) return -reset_error;
  state = static_cast<uint32_t>(DeviceState::kRunning);
  return 0;
}

uint32_t FakeKernel::SupportedOperations(uint32_t index) const {
  constexpr uint32_t kGet = VFIO_DEVICE_FEATURE_GET;
  constexpr uint32_t kSet = VFIO_DEVICE_FEATURE_SET;
  switch (index) {
    case uapi::kFeatureMigration:
      return kGet;
    case uapi::kFeatureMigDeviceState:
      return kGet | kSet;
    case uapi::kFeatureMigDataSize:
      return data_size_error != ENOTTY ? kGet : 0;
    case uapi::kFeatureDmaLoggingStart:
    case uapi::kFeatureDmaLoggingStop:
      return has_dma_logging ? kSet : 0;
    case uapi::kFeatureDmaLoggingReport:
      return has_dma_logging ? kGet : 0;
    case uapi::kFeatureMigPrecopyInfoV2:
      return has_precopy_info_v2 ? kSet : 0;
    default:
      return 0;
  }
}

// The checks, in their order, are those of the kernel's vfio_check_feature().
int FakeKernel::Feature(void* argument) {
  auto* const header = static_cast<uapi::FeatureHeader*>(argument);
  constexpr uint32_t kOperations = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
  const uint32_t supported = SupportedOperations(header->flags & VFIO_DEVICE_FEATURE_MASK);
  if (supported == 0) return -ENOTTY;
  if ((header->flags & VFIO_DEVICE_FEATURE_MASK) == uapi::kFeatureMigration &&
      migration_error != 0) {
    return -migration_error;
  }
  if ((header->flags & kOperations & ~supported) != 0) return -EINVAL;
  if ((header->flags & VFIO_DEVICE_FEATURE_PROBE) != 0) return 0;
  if ((header->flags & kOperations) == 0) return -EINVAL;
  return RunFeature(header->flags, header + 1, header->argsz - sizeof(*header));
}

int FakeKernel::RunFeature(uint32_t flags, void* payload, size_t payload_bytes) {
  switch (flags & VFIO_DEVICE_FEATURE_MASK) {
    case uapi::kFeatureMigration: {
      const uapi::MigrationPayload answer = {migration_flags};
      if (payload_bytes < sizeof(answer)) return -EINVAL;
      std::memcpy(payload, &answer, sizeof(answer));
      return 0;
    }
    case uapi::kFeatureMigDeviceState: {
      if (payload_bytes < sizeof(uapi::MigStatePayload)) return -EINVAL;
      if ((flags & VFIO_DEVICE_FEATURE_SET) != 0) return SetState(payload);
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
    case uapi::kFeatureDmaLoggingStart:
      return payload_bytes < sizeof(uapi::DmaLoggingStartPayload) ? -EINVAL : DmaStart(payload);
    case uapi::kFeatureDmaLoggingReport:
      return payload_bytes < sizeof(uapi::DmaLoggingReportPayload) ? -EINVAL : DmaReport(payload);
    case uapi::kFeatureDmaLoggingStop:
      return DmaStop();
    case uapi::kFeatureMigPrecopyInfoV2:
      precopy_info_v2_ = true;
      return 0;
    default:
      return -ENOTTY;
  }
}

int FakeKernel::DmaStart(void* payload) {
  uapi::DmaLoggingStartPayload start;
  std::memcpy(&start, payload, sizeof(start));
  if (dma_start_error != 0) return -dma_start_error;
  if (start.num_ranges == 0 || start.reserved != 0) return -EINVAL;
  const auto* const ranges = reinterpret_cast<const uapi::DmaRange*>(start.ranges);
  for (uint32_t i = 0; i < start.num_ranges; ++i) {
    dma_ranges.push_back({ranges[i].iova, ranges[i].length});
  }
  dma_page_bytes = start.page_size;
  return 0;
}

int FakeKernel::DmaReport(void* payload) {
  uapi::DmaLoggingReportPayload report;
  std::memcpy(&report, payload, sizeof(report));
  if (dma_ranges.empty()) return -EINVAL;
  auto* const bitmap = reinterpret_cast<uint64_t*>(report.bitmap);
  for (auto page = dma_dirty.lower_bound(report.iova);
       page != dma_dirty.end() && *page - report.iova < report.length;
       page = dma_dirty.erase(page)) {
    const uint64_t bit = (*page - report.iova) / report.page_size;
    bitmap[bit / 64] |= uint64_t{1} << (bit % 64);
    if (dma_report_error != 0) return -dma_report_error;  // half of it is gone then
  }
  return -dma_report_error;
}

int FakeKernel::DmaStop() {
  if (dma_stop_error != 0) return -dma_stop_error;
  if (dma_ranges.empty()) return -EINVAL;
  dma_ranges.clear();
  return 0;
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
