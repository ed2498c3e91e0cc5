#include "raw_device.h"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <vector>

namespace godwit::lab {
namespace {

constexpr unsigned long kGetPrecopyInfo = _IO(VFIO_TYPE, VFIO_BASE + 21);
constexpr uint32_t kFeatureMigDataSize = 9;

[[noreturn]] void Fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

UniqueFd OpenFile(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid()) Fail("open " + path);
  return fd;
}

std::string GroupPath(const std::string& device) {
  const std::string link = device + "/iommu_group";
  std::array<char, 4096> target;
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  if (length < 0) Fail(link);
  const std::string_view path(target.data(), static_cast<size_t>(length));
  return "/dev/vfio/" + std::string(path.substr(path.rfind('/') + 1));
}

}  // namespace

std::string_view StateName(uint32_t state) {
  constexpr std::array<std::string_view, kStates> kNames = {
      "ERROR",    "STOP",        "RUNNING",  "STOP_COPY",
      "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"};
  return state < kStates ? kNames[state] : "?";
}

RawDevice::RawDevice(const std::string& path)
    : path_(path),
      container_(OpenFile("/dev/vfio/vfio")),
      group_(OpenFile(GroupPath(path))),
      device_(OpenDevice()) {
  if (!device_.valid()) Fail("open " + path);
}

int RawDevice::OpenDevice() const {
  int container = container_.get();
  if (ioctl(group_.get(), VFIO_GROUP_SET_CONTAINER, &container) < 0) return -1;
  if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) return -1;
  const std::string name = path_.substr(path_.rfind('/') + 1);
  return ioctl(group_.get(), VFIO_GROUP_GET_DEVICE_FD, name.c_str());
}

int RawDevice::Feature(uint32_t flags, void* payload, size_t payload_bytes) const {
  vfio_device_feature header = {};
  std::vector<std::byte> request(sizeof(header) + payload_bytes);
  header.argsz = static_cast<uint32_t>(request.size());
  header.flags = flags;
  std::memcpy(request.data(), &header, sizeof(header));
  if (payload_bytes > 0) std::memcpy(request.data() + sizeof(header), payload, payload_bytes);
  const int error = ioctl(device_.get(), VFIO_DEVICE_FEATURE, request.data()) < 0 ? errno : 0;
  if (payload_bytes > 0) std::memcpy(payload, request.data() + sizeof(header), payload_bytes);
  return error;
}

uint32_t RawDevice::MigrationFlags() const {
  uint64_t flags = 0;
  errno = Feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, &flags, sizeof(flags));
  if (errno != 0) Fail("get the migration flags");
  return static_cast<uint32_t>(flags);
}

uint32_t RawDevice::State() const {
  vfio_device_feature_mig_state state = {};
  errno = Feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &state,
                  sizeof(state));
  if (errno != 0) Fail("get the migration state");
  return state.device_state;
}

int RawDevice::SetState(uint32_t wanted, UniqueFd* data_fd) const {
  vfio_device_feature_mig_state state = {.device_state = wanted, .data_fd = -1};
  const int error = Feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &state,
                            sizeof(state));
  UniqueFd opened(error == 0 ? state.data_fd : -1);
  if (data_fd != nullptr) *data_fd = std::move(opened);
  return error;
}

void RawDevice::Reset() const {
  if (ioctl(device_.get(), VFIO_DEVICE_RESET) < 0) Fail("reset");
}

uint64_t RawDevice::StopCopyBytes() const {
  uint64_t bytes = 0;
  errno = Feature(VFIO_DEVICE_FEATURE_GET | kFeatureMigDataSize, &bytes, sizeof(bytes));
  if (errno != 0) Fail("get the state's size");
  return bytes;
}

uint64_t RawDevice::BarOffset() const {
  vfio_region_info info = {};
  info.argsz = sizeof(info);
  info.index = VFIO_PCI_BAR0_REGION_INDEX;
  if (ioctl(device_.get(), VFIO_DEVICE_GET_REGION_INFO, &info) < 0) Fail("find BAR 0");
  return info.offset;
}

uint32_t RawDevice::ReadBar(uint32_t offset) const {
  uint32_t value = 0;
  const auto at = static_cast<off_t>(BarOffset() + offset);
  if (pread(device_.get(), &value, sizeof(value), at) != sizeof(value)) Fail("read BAR 0");
  return value;
}

void RawDevice::WriteBar(uint32_t offset, uint32_t value) const {
  const auto at = static_cast<off_t>(BarOffset() + offset);
  if (pwrite(device_.get(), &value, sizeof(value), at) != sizeof(value)) Fail("write BAR 0");
}

int GetPrecopyInfo(int data_fd, RawPrecopyInfo* info) {
  *info = {.argsz = sizeof(*info), .flags = 0, .initial_bytes = 0, .dirty_bytes = 0};
  return ioctl(data_fd, kGetPrecopyInfo, info) < 0 ? errno : 0;
}

std::string ReadAttribute(const std::string& device, const std::string& name) {
  const std::string path = device + "/" + name;
  std::ifstream file(path);
  if (!file) Fail(path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int TryWriteAttribute(const std::string& device, const std::string& name,
                      const std::string& value) {
  const UniqueFd fd = UniqueFd(open((device + "/" + name).c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  return write(fd.get(), value.data(), value.size()) < 0 ? errno : 0;
}

void WriteAttribute(const std::string& device, const std::string& name, const std::string& value) {
  errno = TryWriteAttribute(device, name, value);
  if (errno != 0) Fail("write '" + value + "' to " + name);
}

void Expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

}  // namespace godwit::lab
