// Reads and writes the registers of an mtty device, the kernel's sample VFIO device, as a VM's
// driver would: through the device's BARs. Also tells its migration state.
//
//   mtty_registers set DEVICE PORT.REGISTER=VALUE…
//   mtty_registers get DEVICE
//   mtty_registers state DEVICE
//   mtty_registers config DEVICE [OFFSET=BYTE…]
//
// DEVICE is the device's folder, /sys/bus/mdev/devices/UUID. PORT is 0 or 1, REGISTER one of
// line_control, modem_control, scratch; `get` prints what `set` takes, a register a line. `config`
// writes the bytes to the PCI configuration space, then prints all of it in hexadecimal.
//
// It shares no code with Godwit, so that a mistake there can't hide itself here. Opening an mtty
// device changes nothing, and it keeps registers and migration state when it is closed: so this may
// run before and after a migration. It never resets the device, which would make it RUNNING.

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace {

constexpr int kPorts = 2;

// A 16550's register file, as far as it keeps what is written to it.
struct Register {
  std::string_view name;
  off_t offset;
};
constexpr std::array<Register, 3> kRegisters = {{
    {"line_control", 3},
    {"modem_control", 4},
    {"scratch", 7},
}};

// In the order of enum vfio_device_mig_state; the last two are newer than Debian 12's headers.
constexpr std::array<std::string_view, 8> kStates = {
    "ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"};

[[noreturn]] void Fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

class Fd {
 public:
  explicit Fd(int fd, const std::string& what) : fd_(fd) {
    if (fd < 0) Fail(what);
  }
  ~Fd() { close(fd_); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

std::string GroupPath(const std::string& device) {
  const std::string link = device + "/iommu_group";
  std::array<char, 4096> target;
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  if (length < 0) Fail(link);
  const std::string_view path(target.data(), static_cast<size_t>(length));
  return "/dev/vfio/" + std::string(path.substr(path.rfind('/') + 1));
}

// An opened VFIO device, by way of its group and a container of its own.
class Device {
 public:
  explicit Device(const std::string& path)
      : container_(open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC), "open /dev/vfio/vfio"),
        group_(open(GroupPath(path).c_str(), O_RDWR | O_CLOEXEC), "open " + GroupPath(path)),
        device_(OpenDevice(path), "open " + path) {}

  uint8_t Read(int port, const Register& reg) const {
    uint8_t value = 0;
    if (pread(device_.get(), &value, 1, BarOffset(port) + reg.offset) != 1) Fail("read a register");
    return value;
  }

  void Write(int port, const Register& reg, uint8_t value) const {
    if (pwrite(device_.get(), &value, 1, BarOffset(port) + reg.offset) != 1) {
      Fail("write a register");
    }
  }

  void WriteConfig(uint64_t offset, uint8_t value) const {
    const vfio_region_info config = ConfigRegion();
    if (offset >= config.size) throw std::invalid_argument("outside the configuration space");
    if (pwrite(device_.get(), &value, 1, static_cast<off_t>(config.offset + offset)) != 1) {
      Fail("write the configuration space");
    }
  }

  std::string ReadConfig() const {
    const vfio_region_info config = ConfigRegion();
    std::string bytes(config.size, '\0');
    const ssize_t got =
        pread(device_.get(), bytes.data(), bytes.size(), static_cast<off_t>(config.offset));
    if (got < 0 || static_cast<size_t>(got) != bytes.size()) Fail("read the configuration space");
    return bytes;
  }

  uint32_t MigrationState() const {
    // The header ends in a flexible array, which C++ lets no other member follow.
    constexpr size_t kBytes = sizeof(vfio_device_feature) + sizeof(vfio_device_feature_mig_state);
    alignas(vfio_device_feature) std::array<std::byte, kBytes> request = {};
    vfio_device_feature header = {};
    header.argsz = request.size();
    header.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
    std::memcpy(request.data(), &header, sizeof(header));
    if (ioctl(device_.get(), VFIO_DEVICE_FEATURE, request.data()) < 0) {
      Fail("get the migration state");
    }
    vfio_device_feature_mig_state answer = {};
    std::memcpy(&answer, request.data() + sizeof(header), sizeof(answer));
    return answer.device_state;
  }

 private:
  int OpenDevice(const std::string& path) const {
    int container = container_.get();
    if (ioctl(group_.get(), VFIO_GROUP_SET_CONTAINER, &container) < 0) return -1;
    if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) return -1;
    const std::string uuid = path.substr(path.rfind('/') + 1);
    return ioctl(group_.get(), VFIO_GROUP_GET_DEVICE_FD, uuid.c_str());
  }

  vfio_region_info Region(uint32_t index) const {
    vfio_region_info info = {};
    info.argsz = sizeof(info);
    info.index = index;
    if (ioctl(device_.get(), VFIO_DEVICE_GET_REGION_INFO, &info) < 0) Fail("find a region");
    return info;
  }

  vfio_region_info ConfigRegion() const { return Region(VFIO_PCI_CONFIG_REGION_INDEX); }

  // Each port has a BAR of its own.
  off_t BarOffset(int port) const {
    const vfio_region_info info = Region(static_cast<uint32_t>(VFIO_PCI_BAR0_REGION_INDEX + port));
    if (info.size == 0) throw std::runtime_error("port " + std::to_string(port) + " has no BAR");
    return static_cast<off_t>(info.offset);
  }

  const Fd container_;
  const Fd group_;
  const Fd device_;
};

struct Assignment {
  int port;
  Register reg;
  uint8_t value;
};

// The whole text as a number from 0 to `limit`, in C's notations.
std::optional<unsigned long> ParseNumber(const std::string& text, unsigned long limit) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 0);
  if (text.empty() || *end != '\0' || value > limit) return std::nullopt;
  return value;
}

std::optional<Assignment> ParseAssignment(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == text.npos || text.size() < 2 || text[1] != '.') return std::nullopt;
  const int port = text[0] - '0';
  if (port < 0 || port >= kPorts) return std::nullopt;

  const auto value =
      ParseNumber(std::string(text.substr(equals + 1)), std::numeric_limits<uint8_t>::max());
  if (!value) return std::nullopt;
  for (const Register& reg : kRegisters) {
    if (reg.name == text.substr(2, equals - 2)) {
      return Assignment{port, reg, static_cast<uint8_t>(*value)};
    }
  }
  return std::nullopt;
}

void Set(const Device& device, int count, char** texts) {
  for (int i = 0; i < count; ++i) {
    const auto assignment = ParseAssignment(texts[i]);
    if (!assignment)
      throw std::invalid_argument("no PORT.REGISTER=VALUE: " + std::string(texts[i]));
    device.Write(assignment->port, assignment->reg, assignment->value);
  }
}

void Get(const Device& device) {
  for (int port = 0; port < kPorts; ++port) {
    for (const Register& reg : kRegisters) {
      std::cout << port << '.' << reg.name << '=' << unsigned{device.Read(port, reg)} << '\n';
    }
  }
}

void PrintState(const Device& device) {
  const uint32_t state = device.MigrationState();
  if (state < kStates.size()) {
    std::cout << kStates[state] << '\n';
  } else {
    std::cout << "unknown state " << state << '\n';
  }
}

void Config(const Device& device, int count, char** texts) {
  for (int i = 0; i < count; ++i) {
    const std::string text(texts[i]);
    const size_t equals = std::min(text.find('='), text.size() - 1);
    const auto offset = ParseNumber(text.substr(0, equals), 4095);
    const auto value = ParseNumber(text.substr(equals + 1), std::numeric_limits<uint8_t>::max());
    if (!offset || !value) throw std::invalid_argument("no OFFSET=BYTE: " + text);
    device.WriteConfig(*offset, static_cast<uint8_t>(*value));
  }
  constexpr std::string_view kDigits = "0123456789abcdef";
  const std::string bytes = device.ReadConfig();
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    std::cout << kDigits[byte >> 4] << kDigits[byte & 15]
              << (i % 16 == 15 || i + 1 == bytes.size() ? '\n' : ' ');
  }
}

int Usage() {
  std::cerr << "usage: mtty_registers set DEVICE PORT.REGISTER=VALUE…\n"
               "       mtty_registers get|state DEVICE\n"
               "       mtty_registers config DEVICE [OFFSET=BYTE…]\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string_view command = argc >= 3 ? argv[1] : "";
  const bool is_known = (command == "set" && argc > 3) || command == "config" ||
                        ((command == "get" || command == "state") && argc == 3);
  if (!is_known) return Usage();

  const Device device(argv[2]);
  if (command == "set") Set(device, argc - 3, argv + 3);
  if (command == "get") Get(device);
  if (command == "state") PrintState(device);
  if (command == "config") Config(device, argc - 3, argv + 3);
  return 0;
} catch (const std::exception& error) {
  std::cerr << "mtty_registers: " << error.what() << '\n';
  return 1;
}
