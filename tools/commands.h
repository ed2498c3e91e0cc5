// The subcommands of godwit. Each returns an ExitCode.
#ifndef GODWIT_TOOLS_COMMANDS_H_
#define GODWIT_TOOLS_COMMANDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "godwit/session.h"
#include "tools/exit_code.h"

namespace godwit {

struct LoopbackCommand {
  uint32_t devices = 2;
  std::string size = "1GiB";
  uint32_t seed = 1;
  TransportKind transport = TransportKind::kTcp;
  uint32_t lanes = 4;
  std::string packet_bytes = "1MiB";
  std::string json;
};
ExitCode RunLoopback(const LoopbackCommand& command);

struct SendCommand {
  std::string to;
  std::vector<std::string> devices;
  TransportKind transport = TransportKind::kAuto;
  std::string rdma_device;
  uint32_t lanes = 4;
  std::string packet_bytes = "1MiB";
  std::string json;
};
ExitCode RunSend(const SendCommand& command);

struct ReceiveCommand {
  std::string listen;
  std::string rdma_device;
  std::vector<std::string> devices;
  std::string json;
  int port_fd = -1;  // the port number goes here once the command listens
};
ExitCode RunReceive(const ReceiveCommand& command);

struct DevicesCommand {
  std::string json;
};
ExitCode RunDevices(const DevicesCommand& command);

}  // namespace godwit

#endif  // GODWIT_TOOLS_COMMANDS_H_
