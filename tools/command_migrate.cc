// godwit send and godwit receive.

#include <absl/strings/str_cat.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/units.h"
#include "tools/commands.h"
#include "tools/progress_line.h"
#include "tools/report.h"
#include "tools/session_runner.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

class ReceiveObserver final : public NoteObserver {
 public:
  explicit ReceiveObserver(int port_fd) : port_fd_(port_fd) {}
  void OnListening(absl::string_view address, uint16_t port) override {
    if (port_fd_ < 0) {
      spdlog::info("listening on {}:{}", std::string(address), port);
      return;
    }
    const std::string line = absl::StrCat(port, "\n");
    if (::write(port_fd_, line.data(), line.size()) < 0) spdlog::warn("--port-fd: write failed");
    ::close(port_fd_);
  }

 private:
  const int port_fd_;
};

struct OpenedDevices {
  std::vector<std::unique_ptr<Device>> owned;
  std::vector<Device*> borrowed;
};

// The first that can't be opened ends it: nothing has been touched yet.
absl::StatusOr<OpenedDevices> OpenDevices(const std::vector<std::string>& specs, DeviceRole role) {
  OpenedDevices devices;
  for (const std::string& spec : specs) {
    auto device = OpenDevice(spec, role);
    if (!device.ok()) return device.status();
    devices.borrowed.push_back(device->get());
    devices.owned.push_back(*std::move(device));
  }
  return devices;
}

}  // namespace

ExitCode RunSend(const SendCommand& command) {
  const auto packet_bytes = ParseBytes(command.packet_bytes);
  if (!packet_bytes.ok()) return Refuse(packet_bytes.status());
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) return Refuse(json.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kSource);
  if (!devices.ok()) return Refuse(devices.status(), &*json);

  SourceOptions options;
  options.to = command.to;
  options.transport = command.transport;
  options.rdma_device = command.rdma_device;
  options.lanes = command.lanes;
  options.packet_bytes = *packet_bytes;
  NoteObserver observer;
  SourceSession session(options, devices->borrowed, observer);
  return RunSession(session, *json);
}

ExitCode RunReceive(const ReceiveCommand& command) {
  auto json = JsonOutput::Open(command.json);
  if (!json.ok()) return Refuse(json.status());
  auto devices = OpenDevices(command.devices, DeviceRole::kTarget);
  if (!devices.ok()) return Refuse(devices.status(), &*json);

  TargetOptions options;
  options.listen = command.listen;
  options.rdma_device = command.rdma_device;
  ReceiveObserver observer(command.port_fd);
  TargetSession session(options, devices->borrowed, observer);
  return RunSession(session, *json);
}

}  // namespace godwit
